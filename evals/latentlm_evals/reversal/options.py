"""What `latentlm eval reversal` can be told."""

from dataclasses import dataclass

from latentlm.data import QuestionSource, TextSource
from latentlm.result import check_replaceable, check_samples_replaceable


@dataclass(frozen=True)
class Options:
    """Settings of the reversal evaluation.

    Args:
        suite: test sets by the name of their data part, e.g. binding or {kind: binding, level: concept}; several
            as a list.
        data: a recipe, a run folder or a data part to take the test questions from; by default the run's own.
        in_context: ask same and reverse questions once more with the training sentence that states their fact before
            them; tasks same_in_context and reverse_in_context.
        out: result file; by default eval/reversal.json in a run folder, none for other checkpoints.
        samples: file for every question, what the model wrote and whether it is right, as JSON lines.
        device: torch device; the GPU if there is one.
        limit: questions of each subset, split and answer type, spread over the facts; all without it.
        ranked: questions of each such group whose answers are ranked by likelihood.
        candidates: most answers that a question's own is ranked among.
        permutations: rounds of the entity-level null.
        batch_size: sequences in one forward pass; does not change the result.
        seed: of the choice of ranked questions and candidates, the null and the bootstrap.
    """

    suite: tuple[QuestionSource, ...] = ()
    data: str | TextSource | None = None
    in_context: bool = False
    out: str | None = None
    samples: str | None = None
    device: str | None = None
    limit: int | None = None
    ranked: int = 30
    candidates: int = 30
    permutations: int = 2000
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        check_replaceable("out", self.out)
        check_samples_replaceable("samples", self.samples)
        if self.suite and self.data is not None:
            raise ValueError("suite: names the test sets, and so does data; leave one out")
        for key, low in {"limit": 1, "ranked": 1, "candidates": 2, "permutations": 1, "batch_size": 1}.items():
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"{key}: {value} is too few; give at least {low}")
