"""The scores of every (subset, split, asks) group of test items, in the JSON shape of lm-eval."""

from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from latentlm.data import Item
from latentlm_evals.models.generation import (
    SPARE_TOKENS,
    answer_ids,
    answer_logprobs,
    causal_model,
    check_room,
    generate_answers,
    prompt_ids,
    written_form,
)
from latentlm_evals.reversal.candidates import Pick, pick_choices, pick_pools
from latentlm_evals.reversal.in_context import SPLITS as STATED
from latentlm_evals.reversal.tokenizer_warnings import warnings_of
from latentlm_evals.statistics.bootstrap import bootstrap, open_bootstrap
from latentlm_evals.statistics.permutation import Block, delta_logp, permutation_test
from latentlm_evals.statistics.ranking import OPTIONS, beats_three, centre, chance_mrr, gold_ranks, reciprocal_ranks

VERSION = 2  # of the scores: raise it when the same model and items would get other numbers
SPLITS = ("same", "reverse", "both", "composition", "shortcut", "non_reciprocal")
ERRORS = ("shortcut", "non_reciprocal")  # here the "answer" is a mistake, and lower is better
IN_CONTEXT = "_in_context"  # behind the split: the statement of the fact stands before the question
ALL_SPLITS = (*SPLITS, *(split + IN_CONTEXT for split in STATED))


def evaluate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    *,
    in_context: Sequence[Item] = (),
    batch_size: int = 64,
    seed: int = 0,
    max_ranked: int = 100,
    max_candidates: int = 50,
    num_permutations: int = 2000,
) -> dict:
    """Score test items by what the model writes and by how it ranks the answers of the same pool.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: the one it was trained with.
        items: prompts with answers, e.g. ``recipe.data.items()``.
        in_context: the same and reverse questions once more, behind the statement of their fact; see `context.py`.
        batch_size: sequences in one forward pass; does not change the result.
        seed: of the choices below, the permutations and the bootstrap.
        max_ranked: items ranked by likelihood in a group and pool, spread evenly over facts.
        max_candidates: candidate answers in a pool; of a larger one, only items whose answer was drawn are ranked.
        num_permutations: rounds of the entity-level null.

    Returns:
        lm-eval's shape: ``results[task]["metric,none"]``, ``n-samples``, ``versions``; ``summary`` over all tasks of a
        split; ``samples[task]``, every question with what was written.
    """
    model, items = causal_model(model), list(dict.fromkeys(items))  # a question asked twice is one question
    _check(items, batch_size=batch_size, max_ranked=max_ranked, max_candidates=max_candidates)
    in_context = list(dict.fromkeys(in_context))
    _check_each("items", items, SPLITS)
    _check_each("in_context", in_context, STATED)
    _check_room(model, tokenizer, in_context)
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for suffix, asked in (("", items), (IN_CONTEXT, in_context)):
        for item in asked:
            groups.setdefault((item.subset, item.split + suffix, item.asks), []).append(item)
    results, counts, samples, hits_of = {}, {}, {}, {}
    places = {split: place for place, split in enumerate(ALL_SPLITS)}
    for (subset, split, asks), rows in sorted(groups.items(), key=lambda g: (g[0][0], places[g[0][1]], g[0][2])):
        task = f"reversal/{subset}/{split}/{asks}"
        written = generate_answers(model, tokenizer, rows, batch_size=batch_size, label=f"generate {task}")
        exact, contains = _hits(tokenizer, rows, written)
        hits_of.setdefault(split, []).append((rows, exact))
        # to echo is an error however likely the other answers are, so the error splits are not ranked
        picks = [] if split in ERRORS else pick_pools(rows, items, max_ranked, max_candidates, seed)
        choices = pick_choices(rows, max_ranked)

        def ranked(pick: Pick, label: str = f"rank {task}") -> Block:
            logp = answer_logprobs(model, tokenizer, pick.items, pick.candidates, batch_size=batch_size, label=label)
            return logp, torch.tensor(pick.gold)

        scores = _rates("exact", exact, _facts(rows), seed) | _rates("contains", contains, _facts(rows), seed)
        facts = [fact for pick in picks for fact in _facts(pick.items)]
        scores |= _likelihood([ranked(pick) for pick in picks], facts, seed, num_permutations)
        if choices is not None:
            scores |= _accuracy(*ranked(choices), choices.items, seed)
        results[task] = {
            "alias": f"{subset} {split} {asks}",
            **{f"{name},none": value for name, value in scores.items()},
        }
        counts[task] = _counts(rows, [*picks, *([choices] if choices else [])])
        hits = zip(rows, written, exact.bool().tolist(), contains.bool().tolist(), strict=True)
        samples[task] = [
            {"fact": row.fact, "prompt": row.prompt, "answer": row.answer, "generated": text, "exact": e, "contains": c}
            for row, text, e, c in hits
        ]
    return {
        "results": results,
        "summary": _summary(results, counts, hits_of, seed),
        "config": {
            "model": type(model).__name__,
            "decoding": f"greedy, longest answer + {SPARE_TOKENS} tokens",
            "batch_size": batch_size,
            "seed": seed,
            "max_ranked": max_ranked,
            "max_candidates": max_candidates,
            "num_permutations": num_permutations,
            "software": {name: version(name) for name in ("latentlm", "torch", "transformers")},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
        "versions": dict.fromkeys(results, VERSION),
        "n-samples": counts,
        "higher_is_better": {
            task: dict.fromkeys(("exact", "contains"), task.split("/")[-2] not in ERRORS) for task in results
        },
        "samples": samples,
        "warnings": warnings_of(tokenizer, [*items, *in_context]),
    }


def _check(items: Sequence[Item], **counts: int) -> None:
    if not items:
        raise ValueError("items: none to score: choose a data part with test items (plain text has none)")
    for name, value in counts.items():
        if value < (2 if name == "max_candidates" else 1):
            raise ValueError(f"{name}: {value} is too few: give at least {2 if name == 'max_candidates' else 1}")


def _check_each(name: str, items: Sequence[Item], splits: Sequence[str]) -> None:
    for item in items:
        if item.split not in splits:
            raise ValueError(
                f"{name}: split {item.split!r} of {item.prompt!r} is unknown: use one of {', '.join(splits)}"
            )
        if not item.answer.startswith(" ") or not item.answer.strip():
            raise ValueError(f"{name}: answer {item.answer!r} of {item.prompt!r} must be a space and then text")


def _hits(
    tokenizer: PreTrainedTokenizerBase, rows: list[Item], written: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(tuple(_forms(tokenizer, row)), text.strip().lower()) for row, text in zip(rows, written, strict=True)]
    exact = torch.tensor([text.startswith(forms) for forms, text in pairs], dtype=torch.float64)
    contains = [any(form in text for form in forms) for forms, text in pairs]
    return exact, torch.tensor(contains, dtype=torch.float64)


def _forms(tokenizer: PreTrainedTokenizerBase, row: Item) -> set[str]:
    """Everything that counts as the answer, as the item and as the tokenizer writes it."""
    forms = {form for right in (row.answer, *row.also) for form in (right, written_form(tokenizer, right))}
    return {form.strip().lower() for form in forms}


def _check_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]) -> None:
    """Refuse statements that do not fit before anything is computed; groups are generated for one by one."""
    groups: dict[tuple[str, str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.subset, item.split, item.asks), []).append(item)
    name, fix = "in_context: the longest statement with its question", "leave --in-context out"
    for rows in groups.values():
        prompt = max(len(prompt_ids(tokenizer, row.prompt)) for row in rows)
        answer = max(len(answer_ids(tokenizer, row.answer)) for row in rows)
        check_room(model, prompt, answer, name, fix)


def _facts(rows: Sequence[Item]) -> list[str]:
    return [row.fact for row in rows]


def _rates(name: str, values: torch.Tensor, facts: Sequence[str], seed: int) -> dict[str, float]:
    stderr, low, high = bootstrap(values, facts, seed=seed)
    return {name: float(values.mean()), f"{name}_stderr": stderr, f"{name}_low": low, f"{name}_high": high}


def _counts(rows: list[Item], picks: list[Pick]) -> dict:
    ranked = [row for pick in picks for row in pick.items]
    return {
        "original": len(rows),
        "effective": len(rows),
        "facts": len({row.fact for row in rows}),
        "ranked": len(ranked),
        "ranked_facts": len({row.fact for row in ranked}),
        "candidates": [len(pick.candidates[0]) for pick in picks],
    }


def _accuracy(logp: torch.Tensor, gold: torch.Tensor, rows: list[Item], seed: int) -> dict[str, float]:
    """Share of multiple-choice questions whose right alternative is the likeliest; a tie counts as a fair draw."""
    best = logp == logp.max(1, keepdim=True).values
    hits = best.gather(1, gold[:, None])[:, 0].double() / best.sum(1)
    return _rates("acc", hits, _facts(rows), seed) | {"acc_chance": 1 / logp.shape[1]}


def _likelihood(blocks: list[Block], facts: list[str], seed: int, rounds: int) -> dict[str, float]:
    """Ranking scores of pools; `facts` of their items one pool after another."""
    if not blocks:  # a pool of one answer cannot be ranked
        return {}
    sizes = torch.tensor([scores.shape[1] for scores, gold in blocks for _ in gold])
    found = _rates("mrr", torch.cat([reciprocal_ranks(centre(scores), gold) for scores, gold in blocks]), facts, seed)
    found |= {
        "mrr_chance": sum(map(chance_mrr, sizes.tolist())) / len(sizes),
        "rank": float(torch.cat([gold_ranks(centre(scores), gold) for scores, gold in blocks]).mean()),
    }
    if bool((sizes >= OPTIONS).any()):
        values = torch.cat([beats_three(*block) for block in blocks if block[0].shape[1] >= OPTIONS])
        posed = [fact for fact, size in zip(facts, sizes.tolist(), strict=True) if size >= OPTIONS]
        found |= _rates("mcq", values, posed, seed) | {"mcq_chance": 1 / OPTIONS}
    chances = torch.cat([scores.gather(1, gold[:, None])[:, 0].exp() for scores, gold in blocks])
    found |= _rates("probability", chances, facts, seed)
    deltas = torch.cat([delta_logp(scores, gold) for scores, gold in blocks])
    found["delta_logp"] = float(deltas.mean())
    # whole names are likely or not, which cancels in the mean over a pool but would fill its interval
    own = torch.cat([delta_logp(centre(scores), gold) for scores, gold in blocks])
    interval = open_bootstrap(own - own.mean() + deltas.mean(), facts, seed=seed)
    if interval is not None:
        found |= dict(zip(("delta_logp_stderr", "delta_logp_low", "delta_logp_high"), interval, strict=True))
    test = permutation_test(blocks, seed=seed, rounds=rounds)
    return found if test is None else found | {"delta_logp_p": test[0], "delta_logp_null_sd": test[1]}


def _summary(results: dict, counts: dict, hits_of: dict, seed: int) -> dict[str, float | None]:
    """Over all groups of a split: items pooled for `exact`, means weighted by ranked items for the rest."""
    summary: dict[str, float | None] = {}
    for split in (name for name in ALL_SPLITS if name in hits_of):
        rows = [row for group, _ in hits_of[split] for row in group]
        hits = torch.cat([exact for _, exact in hits_of[split]])
        # a fact of one subset is not the same-named fact of another
        _, low, high = bootstrap(hits, [f"{row.subset}/{row.fact}" for row in rows], seed=seed)
        summary |= {f"{split}_exact": float(hits.mean()), f"{split}_exact_low": low, f"{split}_exact_high": high}
        for name in ("mrr", "mcq", "delta_logp"):
            key, tasks = f"{name},none", [task for task in results if task.split("/")[-2] == split]
            ranked = {task: counts[task]["ranked"] for task in tasks if key in results[task]}
            if ranked:
                total = sum(results[task][key] * number for task, number in ranked.items())
                summary[f"{split}_{name}"] = total / sum(ranked.values())
    same, reverse = summary.get("same_exact"), summary.get("reverse_exact")
    summary["reverse_over_same"] = reverse / same if same and reverse is not None else None
    return summary
