"""What `latentlm eval grammar` can be told."""

from dataclasses import dataclass

from latentlm.data import Grammar
from latentlm.result import check_replaceable


@dataclass(frozen=True)
class Options:
    """Settings of the grammar evaluation.

    Args:
        data: a grammar, e.g. {kind: grammar, depth: 3, seed: 1}; by default the run's own.
        out: result file; by default eval/grammar.json in a run folder, none for other checkpoints.
        device: torch device; the GPU if there is one.
        limit: held-out sentences; all without it.
        penalty: of the ridge readouts, on every squared weight.
        batch_size: sentences in one forward pass; does not change the result.
    """

    data: Grammar | None = None
    out: str | None = None
    device: str | None = None
    limit: int | None = None
    penalty: float = 0.01
    batch_size: int = 512

    def __post_init__(self):
        check_replaceable("out", self.out)
        for key, low in {"limit": 40, "batch_size": 1}.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise ValueError(f"{key}: {value} is too few; give at least {low}")
        if not self.penalty > 0:
            raise ValueError(f"penalty: {self.penalty}; give a number above 0")
