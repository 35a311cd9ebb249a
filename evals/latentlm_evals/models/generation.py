"""Ask a causal language model: what does it write after a prompt, and how likely is each candidate answer.

Letters: ``i`` questions, ``c`` candidate answers.
"""

import inspect
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from latentlm.data import Question
from latentlm_evals.models.decoding import write_after
from latentlm_evals.models.forward import chunks, decoded, evaluating, in_memory, nan_error, pad, pad_id, progress

SPARE_TOKENS = 4  # room beyond the longest answer, so that an answer found one filler word late is still seen


def causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The generating network itself (adapters stay active), or ValueError if it does not predict the next token."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(inner, PreTrainedModel) and inner.can_generate() and not inner.config.is_encoder_decoder:
        return inner
    name = type(inner).__name__
    raise ValueError(
        f"model: {name} is not a causal language model: give one with a next-token head (AutoModelForCausalLM)"
    )


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    batch_size: int = 64,
    label: str = "generate",
) -> list[str]:
    """Greedy continuation of every prompt, as long as the longest answer among `questions` and a few tokens more."""
    prompts = [prompt_ids(tokenizer, question.prompt) for question in questions]
    longest = max(
        len(answer_ids(tokenizer, right)) for question in questions for right in (question.answer, *question.aliases)
    )
    room = check_room(model, max(map(len, prompts)), longest)
    limits = GenerationConfig(max_new_tokens=min(longest + SPARE_TOKENS, room), do_sample=False, num_beams=1)
    order = sorted(range(len(questions)), key=lambda i: len(prompts[i]))  # short ones are padded to short ones
    texts = [""] * len(questions)
    written = continue_prompts(model, tokenizer, [prompts[i] for i in order], limits, batch_size, label)
    for i, text in zip(order, written, strict=True):
        texts[i] = text
    return texts


def continue_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    limits: GenerationConfig,
    batch_size: int,
    label: str,
) -> list[str]:
    """What the model writes after each prompt of tokens, greedily or sampled as `limits` say."""
    return [written.text for written in write_after(model, tokenizer, prompts, limits, batch_size, label)]


def answer_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    candidates: Sequence[Sequence[str]],
    *,
    batch_size: int = 64,
    label: str = "rank",
) -> Tensor:
    """Summed log P(candidate | prompt) of every question and each of its candidates, float64 ``[i c]`` on the CPU.

    Prompt and candidate are tokenised apart and joined, so a candidate is the same tokens after every prompt.
    """
    prompts = [prompt_ids(tokenizer, question.prompt) for question in questions]
    ids_of = {answer: answer_ids(tokenizer, answer) for row in candidates for answer in row}
    check_room(model, max(map(len, prompts)), max(map(len, ids_of.values())))
    # prompts of equal length side by side: then few positions of a batch need logits
    order = sorted(range(len(questions)), key=lambda i: len(prompts[i]))
    pairs = [(i, c) for i in order for c in range(len(candidates[i]))]
    trims = "logits_to_keep" in inspect.signature(model.forward).parameters
    scores = torch.empty(len(questions), len(candidates[0]), dtype=torch.float64)
    for chunk in progress(chunks(pairs, batch_size), label, -(-len(pairs) // batch_size)):
        joined = [prompts[i] + ids_of[candidates[i][c]] for i, c in chunk]
        ids, mask = pad(joined, pad_id(tokenizer), model.device, left=False)
        first = min(len(prompts[i]) for i, _ in chunk) - 1  # the earliest position whose prediction is scored
        kept = torch.arange(first, ids.shape[1] - 1, device=ids.device)
        with in_memory("batch_size", len(chunk), ids.shape[1]), evaluating(model):
            extra = {"logits_to_keep": kept} if trims else {}
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **extra).logits
        logits = logits if trims else logits[:, kept]
        scored = -F.cross_entropy(logits.float().flatten(0, 1), ids[:, kept + 1].flatten(), reduction="none")
        starts = torch.tensor([len(prompts[i]) - 1 for i, _ in chunk], device=ids.device)
        ends = torch.tensor([len(row) - 1 for row in joined], device=ids.device)
        inside = (kept >= starts[:, None]) & (kept < ends[:, None])
        sums = torch.where(inside, scored.view(len(chunk), -1), 0.0).sum(1, dtype=torch.float64).cpu()
        for (i, c), value in zip(chunk, sums, strict=True):
            if value.isnan():
                raise nan_error(questions[i].prompt)
            scores[i, c] = value
    return scores


def written_form(tokenizer: PreTrainedTokenizerBase, answer: str) -> str:
    """The answer as the tokenizer would write it: not every one gives back the spaces and dashes it has read."""
    return decoded(tokenizer, answer_ids(tokenizer, answer))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Tokens of a prompt, open at its end."""
    ids = tokenizer(prompt)["input_ids"]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:  # some tokenisers close every text
        ids = ids[:-1]
    if not ids:
        raise ValueError(f"questions: prompt {prompt!r} has no tokens: an answer needs something to follow")
    return ids


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Tokens of an answer, the same after every prompt."""
    # Tokenized after a letter: SentencePiece-like tokenisers put a mark of their own before the first word of a text.
    alone, anchored = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "a" + answer))
    fits = anchored[: len(alone)] == alone
    ids = anchored[len(alone) :] if fits else tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError(f"questions: answer {answer!r} has no tokens: give text that starts with a space")
    return ids


def check_room(
    model: PreTrainedModel,
    prompt: int,
    answer: int,
    name: str = "questions: the longest prompt",
    fix: str = "shorten the questions",
) -> int:
    """Positions left after the longest prompt; ValueError if the longest answer does not fit."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:  # recurrent networks have no limit
        return answer + SPARE_TOKENS
    if prompt + answer > limit:
        need = f"{name} ({prompt} tokens) and answer ({answer}) need {prompt + answer} positions"
        raise ValueError(f"{need}, the model has {limit}: {fix} or use a longer model")
    return limit - prompt
