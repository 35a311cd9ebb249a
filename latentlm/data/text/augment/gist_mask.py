"""Documents in which what follows a span attends only to its last token."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from latentlm.data.text.augment.base import Draws, Needs, TextAugmentation, Transform, check_share
from latentlm.data.text.examples import Example


@dataclass(frozen=True)
class GistMask(TextAugmentation):
    """Hide all tokens of every span but its last one from the tokens after the span.

        hidden = (first, stop - 1, stop) of every span of two tokens or more, with probability `prob` for a document

    What is said of a span later then has to be known at its last token, where the terms read it. Ids, labels and
    isolated spans stay.

    Source:    gist masking, Mu et al. 2023, arXiv 2304.08467. Differs: no token is added, the last one of a span is the
               gist; only a share of the documents, so that a network stays used to seeing everything.
    Checked:   tests/data/text/augment/test_gist_mask.py - share, where, epochs, and that no later logit depends on what
               is hidden.

    Args:
        prob: share of the documents.
    """

    prob: float = 0.5
    needs: ClassVar[tuple[Needs, ...]] = ("token_spans", "attention_mask")

    def __post_init__(self):
        check_share("gist_mask", "prob", self.prob)

    def examples(self, dataset: Any) -> Transform:
        """Needs a span of two tokens in the data."""
        if not any(map(hidden_in, dataset["spans"])):
            raise ValueError("gist_mask: no document has a span of two tokens; give spans or other data")
        return self._mask

    def _mask(self, example: Example, draws: Draws) -> Example:
        drawn = bool(draws.uniform("gist", 1)[0] < self.prob)
        return replace(example, hidden=[*example.hidden, *hidden_in(example.spans)]) if drawn else example


def hidden_in(spans: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """``(first, stop, since)`` of every span of two tokens or more."""
    return [(first, stop - 1, stop) for first, stop in spans if stop - first > 1]
