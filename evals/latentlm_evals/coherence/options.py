"""What `latentlm eval coherence` can be told."""

from dataclasses import dataclass
from typing import Literal

from latentlm.components.tap import Depth, read_depth
from latentlm.result import check_replaceable

Section = Literal["stability", "detail", "units", "causal", "equivariance", "binding", "coupling"]


@dataclass(frozen=True)
class Options:
    """Settings of the coherence evaluation.

    Args:
        sections: what is measured.
        depths: where, as in recipes; 0, the input of the first block, cannot be asked.
        nouns: nouns of each of the six categories, 3..12; a third of them is held out.
        entities: entities of each transformation, and facts of each kind.
        pairs: interchanges for each concept, depth and pair of contexts.
        updates: facts that are taught a wrong partner, each on a copy.
        components: principal directions in which probes are fitted.
        noise: of the weights, in standard deviations of each matrix, for the units section.
        random_init: also score the same architecture with fresh weights, the null of every score.
        base: run or checkpoint whose readable detail `detail` is divided by; without it `detail` is the skill itself.
        out: result file; by default eval/coherence.json in a run folder, none for other checkpoints.
        device: torch device; the GPU if there is one.
        batch_size: texts in one forward pass; does not change the result.
        seed: of the sentences, halves, shuffles and fresh weights.
    """

    sections: tuple[Section, ...] = ("stability", "detail", "units", "causal", "equivariance", "binding", "coupling")
    depths: tuple[Depth, ...] = ("1/4", "1/2", "3/4")
    nouns: int = 12
    entities: int = 48
    pairs: int = 12
    updates: int = 6
    components: int = 64
    noise: float = 0.1
    random_init: bool = True
    base: str | None = None
    out: str | None = None
    device: str | None = None
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        check_replaceable("out", self.out)
        for depth in self.depths:
            if read_depth(depth) in ((0.0, None), (0.0, 0)):
                raise ValueError(f"depths: {depth!r} is the input of the first block: nothing has been read there yet")
        if not self.depths or not self.sections:
            raise ValueError(f"{'sections' if self.depths else 'depths'}: empty; name at least one")
        limits = {"nouns": 3, "entities": 15, "pairs": 2, "updates": 2, "components": 2, "batch_size": 1}
        for key, low in limits.items():
            if getattr(self, key) < low:
                raise ValueError(f"{key}: {getattr(self, key)} is too few; give at least {low}")
        if self.nouns > 12:
            raise ValueError(f"nouns: {self.nouns}; there are 12 of each category")
        if self.noise <= 0:
            raise ValueError(f"noise: {self.noise}; set it above 0")
