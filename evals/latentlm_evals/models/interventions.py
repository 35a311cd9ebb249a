"""A causal language model as the coherence suite sees it: states at depths, next-token scores, states exchanged.

Letters: ``n`` texts, ``l`` depths, ``d`` width, ``v`` vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from latentlm.backbones import hidden_state, readout
from latentlm_evals.models.generation import causal_model
from latentlm_evals.models.text_encoder import TextEncoder, load_encoder
from latentlm_evals.statistics.arrays import Array

Edit = Callable[[Tensor, list[int]], Tensor]  # states [rows d] of these texts -> states


class Lens:
    """An encoder whose model also answers; every position asked for is the last token of a span of characters.

    Args:
        encoder: of a causal language model.
        batch_size: texts in one forward pass; does not change the result.
    """

    def __init__(self, encoder: TextEncoder, batch_size: int = 64):
        causal_model(encoder.model)
        self.encoder, self.model, self.tokenizer = encoder, encoder.model, encoder.tokenizer
        self.backbone, self.batch_size = encoder.backbone, batch_size

    @classmethod
    def load(cls, name: str, device: str | None, batch_size: int) -> "Lens":
        """Of a run folder, checkpoint or hub name; ValueError unless it is a causal language model."""
        encoder = load_encoder(name, device)
        causal_model(encoder.model)
        if not isinstance(encoder, TextEncoder):
            raise ValueError(f"{name}: reads images; name a causal language model")
        return cls(encoder, batch_size)

    def random_init(self, seed: int) -> "Lens":
        """The same architecture and tokenizer with fresh weights."""
        return Lens(self.encoder.random_init(seed), self.batch_size)

    def states(self, texts: Sequence[str], depths: Sequence[int], spans: Sequence[tuple[int, int]]) -> Array:
        """States ``[n l d]`` at the spans' last tokens, float64."""
        found = self.encoder.states(texts, spans=spans, depths=depths, batch_size=self.batch_size)
        return found.double().numpy()

    def unknown(self, texts: Sequence[str]) -> float:
        """Share of tokens that the tokenizer does not know."""
        ids = [token for text in texts for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]
        unknown = self.tokenizer.unk_token_id
        # byte-level models name some ordinary token as the unknown one and never write it
        return float(np.mean([token == unknown for token in ids])) if unknown is not None else 0.0

    def too_long(self, texts: Sequence[str]) -> str:
        """What is wrong with the longest of the texts for this model; empty if all fit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        longest = max(len(self._ids(text)) for text in texts)
        return f"up to {longest} tokens, and the model reads {limit}" if limit and longest > limit else ""

    @torch.inference_mode()
    def next_token(
        self,
        texts: Sequence[str],
        depth: int | None = None,
        spans: Sequence[tuple[int, int]] = (),
        edit: Edit | None = None,
    ) -> Tensor:
        """Log-probs ``[n v]`` of what follows; `edit` changes the states at a depth at the spans' last tokens."""
        whole = [(0, len(text)) for text in texts]
        ends, head = self._places(texts, whole), readout(self.model)
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for rows, ids, mask, places in self._batches(texts, spans or whole):
            change = (
                nullcontext() if edit is None or depth is None else self._hooked({depth: _writer(edit, rows, places)})
            )
            with change:
                states = self.backbone.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            # the output matrix is as large as several blocks: only the positions that are asked meet it
            asked = torch.tensor([ends[row] for row in rows], device=states.device)
            scores = head(states[torch.arange(len(rows), device=states.device), asked])
            for row, values in zip(rows, scores.float().log_softmax(-1).cpu(), strict=True):
                found[row] = values
        scores = torch.stack(found)
        if scores.isnan().any():
            raise ValueError("model: its logits are NaN: the weights have diverged, nothing can be scored")
        return scores

    def first_token(self, answer: str) -> int:
        """Id of the first token of an answer that follows a text."""
        alone, anchored = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", f"a {answer}"))
        return anchored[len(alone)]

    def log_prob(self, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Summed log P(answer | prompt) ``[n]``, with gradient where the caller has it on."""
        texts = [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
        starts = self._places(texts, [(0, len(prompt)) for prompt in prompts])
        ids, mask = self._pad([self._ids(text) for text in texts])
        scores = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        scores = scores.gather(2, ids[:, 1:, None])[..., 0]
        place = torch.arange(scores.shape[1], device=scores.device)
        inside = (place >= torch.tensor(starts, device=scores.device)[:, None]) & mask[:, 1:].bool()
        return torch.where(inside, scores, 0.0).sum(1)

    @contextmanager
    def noisy(self, size: float, seed: int) -> Iterator[None]:
        """Inside, every weight w of a block is w + size * sd(its matrix) * N(0, 1)."""
        draw = torch.Generator().manual_seed(seed)
        weights = [weight for layer in self.backbone.layers for weight in layer.parameters() if weight.ndim > 1]
        kept = [weight.detach().clone() for weight in weights]
        try:
            with torch.no_grad():
                for weight in weights:
                    noise = torch.randn(weight.shape, generator=draw).to(weight)
                    weight.add_(noise, alpha=size * float(weight.std()))
            yield
        finally:
            with torch.no_grad():
                for weight, before in zip(weights, kept, strict=True):
                    weight.copy_(before)

    def copy(self) -> "Lens":
        """A model of its own, to be trained on."""
        return Lens(TextEncoder(self.encoder.name, copy.deepcopy(self.model), self.tokenizer), self.batch_size)

    @contextmanager
    def _hooked(self, hooks: dict[int, Callable]) -> Iterator[None]:
        handles = [self.backbone.layers[depth - 1].register_forward_hook(hook) for depth, hook in hooks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _batches(
        self, texts: Sequence[str], spans: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        places = self._places(texts, spans)
        ids = [self._ids(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield rows, *self._pad([ids[i] for i in rows]), torch.tensor([places[i] for i in rows])

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    def _places(self, texts: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[int]:
        """Last token that begins inside the span; special tokens lie nowhere in the text."""
        places = []
        for text, (start, end) in zip(texts, spans, strict=True):
            offsets = self.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
            if not inside:
                raise ValueError(f"texts: no token of {text!r} lies in {text[start:end]!r}: the tokenizer drops it")
            places.append(inside[-1])
        return places

    def _pad(self, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.model.device)
        return ids, mask


def _writer(edit: Edit, rows: list[int], places: Tensor) -> Callable:
    def hook(module: nn.Module, args: tuple, output: object) -> object:
        state = hidden_state(output).clone()
        line, place = torch.arange(len(rows), device=state.device), places.to(state.device)
        state[line, place] = edit(state[line, place], rows).to(state)
        return (state, *output[1:]) if isinstance(output, tuple) else state

    return hook
