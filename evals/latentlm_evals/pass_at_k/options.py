"""What `latentlm eval pass_at_k` can be told."""

from dataclasses import dataclass

from latentlm.data import VerifiableSource
from latentlm.result import check_replaceable


@dataclass(frozen=True)
class Options:
    """Settings of the pass@k evaluation.

    Args:
        data: a data part with checkable answers, e.g. {kind: arithmetic, highest: 99}; by default the run's own.
        out: result file; by default eval/pass_at_k.json in a run folder, none for other checkpoints.
        device: torch device; the GPU if there is one.
        limit: test problems; all without it.
        samples: answers drawn for each problem.
        k: which pass@k are told.
        temperature: of sampling.
        max_completion: tokens of an answer.
        batch_size: answers drawn in one pass; another one draws others.
        seed: of sampling and the bootstrap.
    """

    data: VerifiableSource | None = None
    out: str | None = None
    device: str | None = None
    limit: int | None = None
    samples: int = 32
    k: tuple[int, ...] = (1, 8)
    temperature: float = 1.0
    max_completion: int = 16
    batch_size: int = 512
    seed: int = 0

    def __post_init__(self):
        check_replaceable("out", self.out)
        for key in ("limit", "samples", "max_completion", "batch_size"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"{key}: {value} is too few; give at least 1")
        if not self.k or min(self.k) < 1 or max(self.k) > self.samples:
            raise ValueError(f"k: {list(self.k)}; give numbers from 1 to samples ({self.samples})")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature}; give a number above 0")
