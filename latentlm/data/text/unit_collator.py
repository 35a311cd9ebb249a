"""Units for batches that any other collator has made: found in the ids, and read alone in the same forward."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from latentlm.components.attention_mask import FLASH, flash_arguments
from latentlm.components.units import ROLES, UnitsAlone
from latentlm.data.text.chat_turns import headers, special_tokens, turns_of
from latentlm.data.text.collate import Collator
from latentlm.data.text.examples import Example
from latentlm.data.text.units import NEEDS, UnitRule, UnitSpan, find_units, finders, token_text

Tokenizer = Any  # transformers' PreTrainedTokenizerBase: too slow to import for checking a recipe
Segments = Callable[[Mapping[str, Any]], Tensor]
IGNORE = -100
LOOKS = 4  # batches after which a grain that none had is told
OWN = ("input_ids", "labels", "attention_mask", "position_ids", "latent")  # made anew


@dataclass(frozen=True)
class UnitCollator:
    """A collator whose batches also say which tokens make up sentences, paragraphs, turns.

    Documents are told apart as the batch says it (`ForwardInputs.segments`: padding, restarting positions,
    ``cu_seq_lens``); units never reach beyond one. Those that are read alone are put behind the documents of their row
    with positions of their own, so that no token sees another segment; their tokens have no labels. The batch then has
    ``position_ids`` and no ``attention_mask``, and padding is one more segment.

    Checked:   tests/data/text/test_unit_collator.py - the batch of `Collator` on the same documents, any padding.

    Args:
        collator: makes ``input_ids`` and what else the network reads.
        tokenizer: to find units in the ids.
        segments: which document each token of a batch belongs to, -1 for padding.
        grains: to find.
        alone: which units are read alone.
        rules: as ``data.units`` of a recipe.
        max_length: tokens at which the data have been cut; the last unit of a document of that length is left out.
        neighbours: grain and offset of units that terms relate to another one.
    """

    collator: Callable[[Any], dict[str, Any]]
    tokenizer: Tokenizer
    segments: Segments
    grains: tuple[str, ...]
    alone: tuple[UnitsAlone, ...] = ()
    rules: tuple[UnitRule, ...] = ()
    max_length: int | None = None
    neighbours: tuple[tuple[str, int], ...] = ()

    def __call__(self, features: Sequence[Any]) -> dict[str, Any]:
        """The other collator's batch with units."""
        batch = dict(self.collator(features))
        if "input_ids" not in batch:
            raise ValueError(f"units: the batch has no input_ids (it has: {', '.join(batch)}); they are found in those")
        segments = self.segments(batch).cpu()
        labels = batch.get("labels")
        labels = torch.full_like(segments, IGNORE) if labels is None else labels
        parts = [_runs(row) for row in segments]
        examples = [
            [self._example(batch["input_ids"][r, a:b].tolist(), labels[r, a:b].tolist()) for a, b in runs]
            for r, runs in enumerate(parts)
        ]
        self._tell_missing([example for row in examples for example in row])
        made = self._own.rows(examples)
        if "labels" not in batch:
            del made["labels"]
        return made | self._rest(batch, made, parts)

    @cached_property
    def _own(self) -> Collator:
        pad = self.tokenizer.pad_token_id
        bos = self.tokenizer.bos_token_id
        return Collator(
            pad_id=self.tokenizer.eos_token_id if pad is None else pad,
            grains=self.grains,
            alone=self.alone,
            headers=headers(self.tokenizer),
            bos=() if bos is None else (bos,),
        )

    @cached_property
    def _found(self) -> Counter[str | tuple[str, int]]:
        """Units of each grain so far that a term can read, documents in which one has its neighbour, and batches."""
        return Counter()

    def _tell_missing(self, examples: list[Example]) -> None:
        """Say once where there are none: the terms over them would train nothing in silence."""
        if self._found["batches"] >= LOOKS:
            return
        wanted = {each.grain: each for each in self.alone}
        for example in examples:
            for grain, units in example.units.items():
                read = wanted.get(grain, UnitsAlone(grain))
                self._found[grain] += sum(read.has(number, role) for number, (_, _, role) in enumerate(units))
            for grain, offset in self.neighbours:
                self._found[grain, offset] += len(example.units[grain]) > abs(offset)
        self._found["batches"] += 1
        if self._found["batches"] < LOOKS:
            return
        missing = [grain for grain in self.grains if not self._found[grain]]
        if missing:
            how = f"; they are marked by {NEEDS[missing[0]]}" if missing[0] in NEEDS else ""
            warnings.warn(
                f"units: no {' and no '.join(missing)} that a term reads in the first {LOOKS} batches, so terms over "
                f"it train nothing{how}",
                stacklevel=3,
            )
        for grain, offset in self.neighbours:
            if grain not in missing and not self._found[grain, offset]:
                warnings.warn(
                    f"units: no document of the first {LOOKS} batches has {abs(offset) + 1} of '{grain}', so terms "
                    f"that read the {grain} {offset:+d} beside each one train nothing; use longer texts",
                    stacklevel=3,
                )

    def _example(self, ids: list[int], labels: list[int]) -> Example:
        known = {"turn": turns_of(ids, self.tokenizer)}
        if not known["turn"] and (pair := self._prompt(ids, labels)):
            known = {"turn": pair, "column": [replace(unit, role=-1) for unit in pair]}
        how = finders(self.grains, self.rules)
        units = find_units(token_text(ids, self.tokenizer, known), how)
        cut = self.max_length is not None and len(ids) >= self.max_length
        kept = {
            grain: [[unit.first, unit.stop, unit.role] for unit in found if not (cut and unit.stop == len(ids))]
            for grain, found in units.items()
        }
        return Example(ids, labels, units=kept)

    def _prompt(self, ids: list[int], labels: list[int]) -> list[UnitSpan]:
        """Prompt and completion, where everything but a beginning is labelled."""
        special = special_tokens(ids, self.tokenizer)
        there = [k for k in range(len(ids)) if not special[k]]
        first = next((k for k in range(len(ids)) if labels[k] != IGNORE), len(ids))
        before, after = [k for k in there if k < first], [k for k in there if k >= first]
        if len(before) < 1 + (not any(special[:1])) or not after or IGNORE in labels[first:]:
            return []
        user, assistant = ROLES.index("user"), ROLES.index("assistant")
        return [UnitSpan(before[0], before[-1] + 1, user), UnitSpan(after[0], after[-1] + 1, assistant)]

    def _rest(self, batch: dict[str, Any], made: dict[str, Any], parts: list[list[tuple[int, int]]]) -> dict[str, Any]:
        """What else was in the batch, laid out like the new ids."""
        shape, segments = batch["input_ids"].shape, made["latent"]["segments"]
        rest: dict[str, Any] = {}
        for key, value in batch.items():
            if key in OWN or key in FLASH:
                continue
            if isinstance(value, Tensor) and value.shape[:2] == shape:
                moved = value.new_zeros(segments.shape + value.shape[2:])
                for r, runs in enumerate(parts):
                    taken = torch.cat([value[r, a:b] for a, b in runs]) if runs else value[r, :0]
                    moved[r, : len(taken)] = taken
                value = moved
            rest[key] = value
        if any(key in batch for key in FLASH):
            told = flash_arguments(made["position_ids"])
            rest |= {key: told[key] for key in FLASH if key in batch}
        return rest


def _runs(row: Tensor) -> list[tuple[int, int]]:
    """``[start, stop)`` of every document of a row."""
    edges = [0, *((row[1:] != row[:-1]).nonzero().flatten() + 1).tolist(), len(row)]
    return [(a, b) for a, b in pairwise(edges) if a < b and row[a] >= 0]
