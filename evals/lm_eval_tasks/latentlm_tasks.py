"""What the task files call: rows of a set, and scores that need all rows of a pool at once."""

from collections import defaultdict

import torch
from datasets import Dataset
from latentlm_evals.reversal.checkpoint import spread
from latentlm_evals.reversal.measures import centre, delta_logp, gold_ranks
from latentlm_evals.reversal.picks import pick_choices, pick_pools

from latentlm.data.text import Text
from latentlm.recipe import load_recipe


def load(
    recipe: str = "text/reversal",
    split: str = "reverse",
    form: str = "rank",
    limit: int | None = 60,
    ranked: int = 30,
    candidates: int = 30,
    **_: object,
) -> dict[str, Dataset]:
    """Questions of a recipe's data (a name, a file or a run folder): to be written out, or to be ranked."""
    items = spread(load_recipe(recipe).data.items(), limit)
    groups: dict[str, list] = defaultdict(list)
    for item in items:
        if item.split == split:
            groups[f"{item.subset}/{item.asks}"].append(item)
    rows = []
    for group, mine in groups.items():
        if form == "write":
            rows += [{"prompt": item.prompt, "answer": item.answer} for item in mine]
            continue
        own = pick_choices(mine, ranked)
        for pick in [*pick_pools(mine, items, ranked, candidates, 0), *([own] if own else [])]:
            for item, choices, gold in zip(*pick, strict=True):
                key = f"{group}/{item.pool}"
                rows.append({"prompt": item.prompt, "choices": list(choices), "gold": gold, "pool": key})
    if not rows:
        raise ValueError(f"metadata: the data of {recipe} has no questions of split {split}")
    return {"test": Dataset.from_list(rows)}


def load_text(source: str | None = None, max_documents: int | None = None, **_: object) -> dict[str, Dataset]:
    """Texts held out, of a file or a hub data set as ``data: {kind: text}`` reads it: what fine-tuning cost."""
    if source is None:
        raise ValueError('metadata: latentlm_text needs a source; pass --metadata \'{"source": "held_out.jsonl"}\'')
    texts = Text(source, max_documents=max_documents).documents()
    return {"test": Dataset.from_list([{"text": document["text"]} for document in texts])}


def ranks(doc: dict, results: list) -> dict:
    """Log-probs of all candidates, kept for the aggregation over a pool."""
    value = {"pool": doc["pool"], "gold": doc["gold"], "logp": [float(logp) for logp, _ in results]}
    return {"mrr": value, "delta_logp": value}


def written(doc: dict, results: list) -> dict:
    """Whether the continuation starts with the answer, or holds it."""
    answer, text = doc["answer"].strip().lower(), results[0].strip().lower()
    return {"exact": float(text.startswith(answer)), "contains": float(answer in text)}


def mrr(values: list[dict]) -> float:
    """Mean reciprocal rank, each candidate's mean log-prob in its pool removed."""
    return float(torch.cat([1 / gold_ranks(centre(logp), gold) for logp, gold in _pools(values)]).mean())


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
