"""What a network writes after prompts, token by token: greedy or drawn, in batches that do not change it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from latentlm_evals.models.forward import chunks, decoded, evaluating, in_memory, nan_error, pad, pad_id, progress


@dataclass(frozen=True)
class Written:
    """A continuation.

    Attributes:
        text: without the token that ended it.
        ended: whether it came to its end; else the limit of tokens cut it.
    """

    text: str
    ended: bool


@dataclass(frozen=True)
class Draws:
    """Sampling in which every row has its own random numbers, so that it is the same in whatever batch it is drawn.

        next token = argmax_v (logit_v / temperature + g_v),  g_v = -log(-log u_v),  u_v uniform in (0, 1)

    which is a draw from the softmax of the logits at that temperature (the Gumbel-max trick).

    Checked:   tests/evals/answers/test_answer_decoding.py - frequencies, and no matter which batch.

    Args:
        temperature: above 0.
        seeds: one for each row.
    """

    temperature: float
    seeds: Sequence[int]


def write_after(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    limits: GenerationConfig,
    batch_size: int,
    label: str,
    *,
    stop: Sequence[int] = (),
    draws: Draws | None = None,
) -> list[Written]:
    """The continuation of each prompt of tokens, greedy or sampled as `limits` say.

    Prompts are padded on the left, and position ids count from the first real token, so batching changes nothing but
    what `limits` draw. The generation settings of the checkpoint itself do not count.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        prompts: at least one token each; of similar lengths side by side.
        limits: settings of transformers' ``generate``.
        batch_size: prompts in one pass.
        label: of the progress bar.
        stop: tokens that end a continuation, besides the tokenizer's eos token.
        draws: draw with numbers of each row's own; `limits` is then greedy.
    """
    eos = tokenizer.eos_token_id
    ends: list[int] = sorted({*stop, eos} if isinstance(eos, int) else set(stop))
    limits.eos_token_id, limits.pad_token_id = ends or None, pad_id(tokenizer)
    found: list[Written] = []
    own = model.generation_config
    # generate() would fill our gaps from the model's own file (penalties, minimum length)
    model.generation_config = limits
    batches = chunks(range(len(prompts)), batch_size)
    try:
        for numbers in progress(batches, label, -(-len(prompts) // batch_size)):
            rows = [prompts[i] for i in numbers]
            guards = LogitsProcessorList([_NanGuard(tokenizer, rows)])
            if draws is not None:
                guards.append(_Noise(draws.temperature, [draws.seeds[i] for i in numbers], model.device))
            ids, mask = pad(rows, pad_id(tokenizer), model.device, left=True)
            room = ids.shape[1] + (limits.max_new_tokens or 0)
            with in_memory("batch_size", len(rows), room), evaluating(model):
                # transformers declares generate in a mix-in whose type pyright takes for a module's attribute
                out = model.generate(  # type: ignore[operator]
                    input_ids=ids, attention_mask=mask, generation_config=limits, logits_processor=guards
                )
            found += [_written(tokenizer, row, ends) for row in out[:, ids.shape[1] :].tolist()]
    finally:
        model.generation_config = own
    return found


def _written(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: Sequence[int]) -> Written:
    length = next((place for place, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids[:length], skip_special_tokens=True)
    return Written(text if isinstance(text, str) else "".join(text), length is not None)


class _NanGuard(LogitsProcessor):
    """Stops generation at the first NaN: arg-max would quietly turn it into a token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]]):
        self.tokenizer, self.prompts = tokenizer, prompts

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = scores.isnan().any(1)
        if bad.any():
            raise nan_error(decoded(self.tokenizer, self.prompts[int(bad.nonzero()[0])]))
        return scores


class _Noise(LogitsProcessor):
    """Adds each row's own Gumbel noise, after which the largest logit is a draw."""

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device):
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack(
            [
                torch.rand(scores.shape[1], generator=own, device=scores.device, dtype=torch.float64)
                for own in self.generators
            ]
        )
        noise = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
        return scores.double() / self.temperature + noise
