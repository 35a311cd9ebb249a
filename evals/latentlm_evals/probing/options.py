"""What `latentlm eval probe` can be told."""

from dataclasses import dataclass
from typing import Literal

from latentlm.components.tap import Depth, read_depth
from latentlm.result import check_replaceable


@dataclass(frozen=True)
class Options:
    """Settings of the probing evaluation.

    Args:
        data: a recipe or run folder whose facts' attributes, or images' factors, are probed; by default the run's own.
        out: result file; by default eval/probe.json in a run folder, none for other checkpoints.
        device: torch device; the GPU if there is one.
        limit: sentences of each property, or images.
        at: read the last token, the mean of all, or the class token; by default last for text, mean for images.
        depths: where, as in recipes (1/2, block 3); after every block, and before the first, without it.
        null: also probe a network of the same shape with fresh weights.
        cache: folder that keeps the states for the next time, also when stopped half way.
        batch_size: inputs in one forward pass; does not change the result.
        seed: of sentences, folds, control labels and the fresh weights.
    """

    data: str | None = None
    out: str | None = None
    device: str | None = None
    limit: int = 500
    at: Literal["last", "mean", "cls"] | None = None
    depths: tuple[Depth, ...] | None = None
    null: bool = True
    cache: str | None = None
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        check_replaceable("out", self.out)
        if self.depths == ():
            raise ValueError("depths: empty; name at least one, or leave it out")
        for depth in self.depths or ():
            read_depth(depth)
        for key, low in {"limit": 40, "batch_size": 1}.items():
            if getattr(self, key) < low:
                raise ValueError(f"{key}: {getattr(self, key)} is too few; give at least {low}")
        if self.limit > 20000:
            raise ValueError(f"limit: {self.limit} is more than the generators hold; give at most 20000")
