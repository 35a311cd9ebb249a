"""The scores of every group of test questions: what the model writes, and how it ranks the answers of the same pool."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from latentlm.config.schema import dump
from latentlm.data import Question
from latentlm.result import Estimate, Result, Task
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
from latentlm_evals.reversal.groups import ALL_SPLITS, ERRORS, IN_CONTEXT, SPLITS, STATED, Group
from latentlm_evals.reversal.options import Options
from latentlm_evals.reversal.tokenizer_warnings import warnings_of
from latentlm_evals.statistics.bootstrap import bounded_mean, open_mean
from latentlm_evals.statistics.permutation import Block, delta_logp, permutation_test
from latentlm_evals.statistics.ranking import OPTIONS, beats_three, centre, chance_mrr, gold_ranks, reciprocal_ranks

VERSION = 3  # of the scores: raise it when the same model and questions would get other numbers
DEFAULTS = Options()


def evaluate(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    options: Options = DEFAULTS,
    *,
    in_context: Sequence[Question] = (),
) -> Result:
    """Score test questions by what the model writes and by how it ranks the answers of the same pool.

    Args:
        model: a causal language model, with or without adapters.
        tokenizer: the one it was trained with.
        questions: prompts with answers, e.g. ``recipe.data.questions()``.
        options: how many are ranked, and how.
        in_context: the same and reverse questions once more, after the statement of their fact; see `statements.py`.

    Returns:
        A task for each group. ``extra`` holds ``summary`` over all tasks of a split, and ``samples`` by task: every
        question with what was written.
    """
    model, questions = causal_model(model), list(dict.fromkeys(questions))  # a question asked twice is one question
    if not questions:
        raise ValueError("questions: none to score: choose a data part with test questions (plain text has none)")
    in_context = list(dict.fromkeys(in_context))
    _check_each("questions", questions, SPLITS)
    _check_each("in_context", in_context, STATED)
    _check_room(model, tokenizer, in_context)
    groups: dict[Group, list[Question]] = {}
    for suffix, asked in (("", questions), (IN_CONTEXT, in_context)):
        for question in asked:
            groups.setdefault(Group(question.subset, question.split + suffix, question.answer_type), []).append(
                question
            )
    tasks: dict[Group, Task] = {}
    samples: dict[str, list[dict]] = {}
    hits: dict[Group, torch.Tensor] = {}
    for group in sorted(groups, key=lambda group: group.order):
        rows = groups[group]
        written = generate_answers(model, tokenizer, rows, batch_size=options.batch_size, label=f"generate {group.key}")
        exact, contains = _hits(tokenizer, rows, written)
        hits[group] = exact
        tasks[group] = _score(model, tokenizer, group, rows, questions, exact, contains, options)
        said = zip(rows, written, exact.bool().tolist(), contains.bool().tolist(), strict=True)
        samples[str(group.key)] = [
            {"fact": row.fact, "prompt": row.prompt, "answer": row.answer, "generated": text, "exact": e, "contains": c}
            for row, text, e, c in said
        ]
    return Result.measured(
        {group.key: task for group, task in tasks.items()},
        {
            "model": type(model).__name__,
            "decoding": f"greedy, longest answer + {SPARE_TOKENS} tokens",
            "options": dump(options),
        },
        warnings_of(tokenizer, [*questions, *in_context]),
        summary=_summary(tasks, groups, hits, options.seed),
        samples=samples,
    )


def _score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    group: Group,
    rows: list[Question],
    questions: list[Question],
    exact: torch.Tensor,
    contains: torch.Tensor,
    options: Options,
) -> Task:
    # to echo is an error however likely the other answers are, so the error splits are not ranked
    is_error = group.split in ERRORS
    picks = [] if is_error else pick_pools(rows, questions, options.ranked, options.candidates, options.seed)
    choices = pick_choices(rows, options.ranked)

    def ranked(pick: Pick) -> Block:
        label, size = f"rank {group.key}", options.batch_size
        logp = answer_logprobs(model, tokenizer, pick.questions, pick.candidates, batch_size=size, label=label)
        return logp, torch.tensor(pick.gold)

    scores = {
        name: bounded_mean(values, _facts(rows), seed=options.seed, higher_is_better=not is_error)
        for name, values in (("exact", exact), ("contains", contains))
    }
    facts = [fact for pick in picks for fact in _facts(pick.questions)]
    scores |= _likelihood([ranked(pick) for pick in picks], facts, options.seed, options.permutations)
    if choices is not None:
        scores |= _accuracy(*ranked(choices), choices.questions, options.seed)
    counts = _counts(rows, [*picks, *([choices] if choices else [])])
    return Task(scores, " ".join(group), counts, VERSION)


def _check_each(name: str, questions: Sequence[Question], splits: Sequence[str]) -> None:
    for question in questions:
        if question.split not in splits:
            raise ValueError(
                f"{name}: split {question.split!r} of {question.prompt!r} is unknown: use one of {', '.join(splits)}"
            )
        if not question.answer.startswith(" ") or not question.answer.strip():
            raise ValueError(f"{name}: answer {question.answer!r} of {question.prompt!r} must be a space and then text")


def _hits(
    tokenizer: PreTrainedTokenizerBase, rows: list[Question], written: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [(tuple(_forms(tokenizer, row)), text.strip().lower()) for row, text in zip(rows, written, strict=True)]
    exact = torch.tensor([text.startswith(forms) for forms, text in pairs], dtype=torch.float64)
    contains = [any(form in text for form in forms) for forms, text in pairs]
    return exact, torch.tensor(contains, dtype=torch.float64)


def _forms(tokenizer: PreTrainedTokenizerBase, row: Question) -> set[str]:
    """Everything that counts as the answer, as the question and as the tokenizer writes it."""
    forms = {form for right in (row.answer, *row.aliases) for form in (right, written_form(tokenizer, right))}
    return {form.strip().lower() for form in forms}


def _check_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> None:
    """Refuse statements that do not fit before anything is computed; groups are generated for one by one."""
    groups: dict[tuple[str, str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.subset, question.split, question.answer_type), []).append(question)
    name, fix = "in_context: the longest statement with its question", "leave in_context out"
    for rows in groups.values():
        prompt = max(len(prompt_ids(tokenizer, row.prompt)) for row in rows)
        answer = max(len(answer_ids(tokenizer, row.answer)) for row in rows)
        check_room(model, prompt, answer, name, fix)


def _facts(rows: Sequence[Question]) -> list[str]:
    return [row.fact for row in rows]


def _counts(rows: list[Question], picks: list[Pick]) -> dict:
    ranked = [row for pick in picks for row in pick.questions]
    return {
        "original": len(rows),
        "effective": len(rows),
        "facts": len({row.fact for row in rows}),
        "ranked": len(ranked),
        "ranked_facts": len({row.fact for row in ranked}),
        "candidates": [len(pick.candidates[0]) for pick in picks],
    }


def _accuracy(logp: torch.Tensor, gold: torch.Tensor, rows: list[Question], seed: int) -> dict[str, Estimate]:
    """Share of multiple-choice questions whose right alternative is the likeliest; a tie counts as a fair draw."""
    best = logp == logp.max(1, keepdim=True).values
    hits = best.gather(1, gold[:, None])[:, 0].double() / best.sum(1)
    return {"acc": bounded_mean(hits, _facts(rows), seed=seed), "acc_chance": Estimate(1 / logp.shape[1])}


def _likelihood(blocks: list[Block], facts: list[str], seed: int, rounds: int) -> dict[str, Estimate]:
    """Ranking scores of pools; `facts` of their questions one pool after another."""
    if not blocks:  # a pool of one answer cannot be ranked
        return {}
    sizes = torch.tensor([scores.shape[1] for scores, gold in blocks for _ in gold])
    inverse = torch.cat([reciprocal_ranks(centre(scores), gold) for scores, gold in blocks])
    chance = sum(map(chance_mrr, sizes.tolist())) / len(sizes)
    found = {
        # the last of c candidates still has 1 / c
        "mrr": bounded_mean(inverse, facts, least=1 / int(sizes.max()), seed=seed),
        "mrr_chance": Estimate(chance),
        "rank": Estimate(float(torch.cat([gold_ranks(centre(scores), gold) for scores, gold in blocks]).mean())),
    }
    if bool((sizes >= OPTIONS).any()):
        values = torch.cat([beats_three(*block) for block in blocks if block[0].shape[1] >= OPTIONS])
        posed = [fact for fact, size in zip(facts, sizes.tolist(), strict=True) if size >= OPTIONS]
        found |= {"mcq": bounded_mean(values, posed, seed=seed), "mcq_chance": Estimate(1 / OPTIONS)}
    chances = torch.cat([scores.gather(1, gold[:, None])[:, 0].exp() for scores, gold in blocks])
    found["probability"] = bounded_mean(chances, facts, seed=seed)
    deltas = torch.cat([delta_logp(scores, gold) for scores, gold in blocks])
    # whole names are likely or not, which cancels in the mean over a pool but would fill its interval
    own = torch.cat([delta_logp(centre(scores), gold) for scores, gold in blocks])
    found["delta_logp"] = open_mean(own - own.mean() + deltas.mean(), facts, seed=seed)
    test = permutation_test(blocks, seed=seed, rounds=rounds)
    if test is not None:
        found |= {"delta_logp_p": Estimate(test[0]), "delta_logp_null_sd": Estimate(test[1])}
    return found


def _summary(
    tasks: dict[Group, Task], groups: dict[Group, list[Question]], hits: dict[Group, torch.Tensor], seed: int
) -> dict[str, float | None]:
    """Over all groups of a split: questions pooled for `exact`, means weighted by ranked questions for the rest."""
    summary: dict[str, float | None] = {}
    for split in ALL_SPLITS:
        mine = [group for group in tasks if group.split == split]
        if not mine:
            continue
        # a fact of one subset is not the same-named fact of another
        facts = [f"{row.subset}/{row.fact}" for group in mine for row in groups[group]]
        exact = bounded_mean(torch.cat([hits[group] for group in mine]), facts, seed=seed)
        summary |= {
            f"{split}_exact": exact.value, f"{split}_exact_low": exact.low, f"{split}_exact_high": exact.high
        }  # fmt: skip
        for name in ("mrr", "mcq", "delta_logp"):
            ranked = [(tasks[group].value(name), tasks[group].n_samples["ranked"]) for group in mine]
            ranked = [(value, number) for value, number in ranked if value == value]
            if ranked:
                total = sum(number for _, number in ranked)
                summary[f"{split}_{name}"] = sum(value * number for value, number in ranked) / total
    same, reverse = summary.get("same_exact"), summary.get("reverse_exact")
    summary["reverse_over_same"] = reverse / same if same and reverse is not None else None
    return summary
