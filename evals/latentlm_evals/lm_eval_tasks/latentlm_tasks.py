"""What the task files call: rows of a set, and scores that need all rows of a pool at once."""

import math
import re
from collections import defaultdict
from typing import Any

import torch
from datasets import Dataset

from latentlm.data import Question
from latentlm.data.text.corpora import Corpus
from latentlm_evals.lm_eval_tasks.metadata import Metadata, read
from latentlm_evals.reversal.candidates import pick_choices, pick_pools
from latentlm_evals.reversal.score_run import spread
from latentlm_evals.reversal.scoring import ERRORS, SPLITS
from latentlm_evals.statistics.permutation import delta_logp
from latentlm_evals.statistics.ranking import OPTIONS, beats_three, centre, reciprocal_ranks

FORMS = {"rank": "", "write": "_written", "choose": "_choice"}  # as the names of the tasks end


def load(split: str, form: str, **given: Any) -> dict[str, Dataset]:
    """Questions of a split: to be written out, ranked in their pool, or chosen among each one's own answers."""
    told = read(given)
    questions = list(dict.fromkeys(spread(told.questions(), told.limit)))
    rows = _rows(questions, split, form, told)
    if not rows:
        tasks = [
            f"latentlm_reversal_{other}{end}"
            for other in SPLITS
            for kind, end in FORMS.items()
            if (kind == "write" or other not in ERRORS) and _rows(questions, other, kind, told)
        ]
        have = ", ".join(dict.fromkeys(question.split for question in questions)) or "none"
        raise ValueError(
            f"metadata: no questions of split {split} to {form}; the data have the splits {have}: "
            f"ask {', '.join(tasks) or 'other data'}"
        )
    return {"test": Dataset.from_list(rows)}


def _rows(questions: list[Question], split: str, form: str, told: Metadata) -> list[dict]:
    groups: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if question.split == split:
            groups[f"{question.subset}/{question.answer_type}"].append(question)
    if form == "write":
        return [_question(question) for mine in groups.values() for question in mine]
    rows = []
    for group, mine in groups.items():
        own = pick_choices(mine, told.ranked)
        picks = pick_pools(mine, questions, told.ranked, told.candidates, 0) if form == "rank" else [own] if own else []
        for pick in picks:
            for question, choices, gold in zip(*pick, strict=True):
                key = f"{group}/{question.pool}"
                rows.append({"prompt": question.prompt, "choices": list(choices), "gold": gold, "pool": key})
    return rows


def _question(question: Question) -> dict:
    answers = [question.answer, *question.aliases]
    if any("\n" in answer.strip() for answer in answers):
        raise ValueError(
            f"questions: the answer {question.answer!r} has two lines, lm-eval stops after one; leave it out"
        )
    return {"prompt": question.prompt, "answer": question.answer, "answers": answers}


def load_text(**given: Any) -> dict[str, Dataset]:
    """Texts held out, of a file or a hub data set as ``data: {kind: text}`` reads it: what fine-tuning cost."""
    told = read(given)
    if told.source is None:
        raise ValueError('metadata: latentlm_text needs a source; pass --metadata \'{"source": "held_out.jsonl"}\'')
    texts = Corpus(told.source, max_documents=told.max_documents).documents()
    return {"test": Dataset.from_list([{"text": document.text} for document in texts])}


def ranks(doc: dict, results: list) -> dict:
    """Log-probs of all candidates, kept for the aggregation over a pool."""
    value = {"pool": doc["pool"], "gold": doc["gold"], "logp": [float(logp) for logp, _ in results]}
    return {"mrr": value, "mcq": value, "delta_logp": value}


def chosen(doc: dict, results: list) -> dict:
    """Whether the right alternative is the likeliest; a tie counts as a fair draw."""
    logp = [float(logp) for logp, _ in results]
    best = [place for place, value in enumerate(logp) if value == max(logp)]
    return {"acc": (doc["gold"] in best) / len(best), "acc_chance": 1 / len(logp)}


def written(doc: dict, results: list) -> dict:
    """Whether the continuation starts with a right answer, holds one, or ends inside one.

    The last one counts answers that `max_gen_toks` (or the model itself) may have cut: where it is not 0, the other
    two are too low.
    """
    answers, text = [_plain(answer) for answer in doc["answers"]], _plain(results[0])
    exact = text.startswith(tuple(answers))
    cut = bool(text) and not exact and any(answer.startswith(text) for answer in answers)
    return {"exact": float(exact), "contains": float(any(answer in text for answer in answers)), "cut": float(cut)}


def _plain(text: str) -> str:
    """Lower case, no spaces beside marks: not every tokenizer gives back the spaces and dashes it has read."""
    return re.sub(r"\s*([^\w\s])\s*", r"\1", text.strip().lower())


def mrr(values: list[dict]) -> float:
    """Mean reciprocal rank, each candidate's mean log-prob in its pool removed."""
    return float(torch.cat([reciprocal_ranks(centre(logp), gold) for logp, gold in _pools(values)]).mean())


def mcq(values: list[dict]) -> float:
    """Chance that the right answer is likelier than three others of its pool; not a number where no pool has four."""
    scores = [beats_three(logp, gold) for logp, gold in _pools(values) if logp.shape[1] >= OPTIONS]
    return float(torch.cat(scores).mean()) if scores else math.nan


def mean_delta_logp(values: list[dict]) -> float:
    """Mean of log P(answer) - mean log P(other candidates)."""
    return float(torch.cat([delta_logp(logp, gold) for logp, gold in _pools(values)]).mean())


def _pools(values: list[dict]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pools: dict[str, list[dict]] = defaultdict(list)
    for value in values:
        pools[value["pool"]].append(value)
    return [
        (torch.tensor([v["logp"] for v in rows], dtype=torch.float64), torch.tensor([v["gold"] for v in rows]))
        for rows in pools.values()
    ]
