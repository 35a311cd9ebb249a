"""What `latentlm eval answers` can be told."""

import math
from dataclasses import dataclass
from typing import Literal

from latentlm.data import Corpus
from latentlm.result import check_replaceable, check_samples_replaceable

Turns = Literal["last", "all"]


@dataclass(frozen=True)
class Options:
    """Settings of the answers evaluation.

    Args:
        source: test rows with the answers, a file, folder or hub data set with a column messages, or prompt and
            completion; {path: NAME, split: test} for a split of a hub data set.
        text: texts whose loss is measured, plain or chats, in the same forms.
        turns: of a chat, the last assistant turn is asked for, or each of them.
        scorer: a score beside exact and normalized match: regex, regex_nl_rx, or module:function of your own, which
            takes answer and right answer and returns a number.
        temperature: of sampling; 0 writes the likeliest token.
        num_samples: answers to each prompt; scores are means over them.
        max_new_tokens: most tokens of an answer; by default as many as the longest right one and a few more.
        stop: text that ends an answer, besides the end of the turn; several as a list.
        window: most tokens that are read at once for the loss of text; by default the positions of the model, at most
            4096.
        limit: rows from the start of source and of text; all without it.
        out: result file; by default eval/answers.json in a run folder, none for other checkpoints.
        samples: file for every prompt, answer, right answer and score, as JSON lines.
        device: torch device; the GPU if there is one.
        batch_size: prompts in one pass; does not change the answers.
        seed: of sampling and the bootstrap.
    """

    source: str | Corpus | None = None
    text: str | Corpus | None = None
    turns: Turns = "last"
    scorer: str | None = None
    temperature: float = 0.0
    num_samples: int = 1
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    window: int | None = None
    limit: int | None = None
    out: str | None = None
    samples: str | None = None
    device: str | None = None
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        check_replaceable("out", self.out)
        check_samples_replaceable("samples", self.samples)
        if self.source is None and self.text is None:
            raise ValueError("source: give a file of test rows, source=test.jsonl, or text=FILE for the loss of text")
        for key, low in {"num_samples": 1, "max_new_tokens": 1, "window": 2, "limit": 1, "batch_size": 1}.items():
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"{key}: {value} is too few; give at least {low}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature: {self.temperature}; give 0 or a number above it")
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError("num_samples: without sampling all answers are the same; give a temperature too")
        if "" in self.stop:
            raise ValueError("stop: an empty text would end every answer at once; leave it out")
        if self.source is None and (self.samples is not None or self.scorer is not None):
            key = "samples" if self.samples is not None else "scorer"
            raise ValueError(f"{key}: there are no answers without test rows; give source too")
