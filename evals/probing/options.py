"""What `latentlm eval probe` can be told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Settings of the probing evaluation.

    Args:
        data: a recipe or run folder whose facts' attributes are probed as well; by default the run's own.
        out: result file; by default eval/probe.json in a run folder, none for other checkpoints.
        device: torch device; the GPU if there is one.
        limit: sentences of each property.
        at: read the last token of a sentence, or the mean of all.
        depths: blocks to probe; all without it.
        null: also probe a network of the same shape with fresh weights.
        cache: folder that keeps the states for the next time.
        batch_size: sentences in one forward pass; does not change the result.
        seed: of sentences, splits, control labels and the fresh weights.
    """

    data: str | None = None
    out: str | None = None
    device: str | None = None
    limit: int = 1000
    at: str = "last"
    depths: tuple[int, ...] | None = None
    null: bool = True
    cache: str | None = None
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self):
        if self.at not in ("last", "mean"):
            raise ValueError(f"at: {self.at!r}; choose last or mean")
        for key, low in {"limit": 40, "batch_size": 1}.items():
            if getattr(self, key) < low:
                raise ValueError(f"{key}: {getattr(self, key)} is too few; give at least {low}")
        if self.limit > 20000:
            raise ValueError(f"limit: {self.limit} is more than the generators hold; give at most 20000")
