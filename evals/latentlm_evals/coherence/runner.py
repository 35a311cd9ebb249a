"""The sections one after the other: each is asked what it can be, and what has no meaning is noted."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from latentlm.config.schema import kind_of
from latentlm_evals.coherence import fact_pairs as about_pairs
from latentlm_evals.coherence import noun_concepts as about_nouns
from latentlm_evals.coherence.dataset_facts import own_pairs
from latentlm_evals.coherence.fact_pairs import Pairs
from latentlm_evals.coherence.interchange import SCORES, Exchange, question
from latentlm_evals.coherence.noun_concepts import CONCEPTS, Nouns
from latentlm_evals.coherence.options import Options
from latentlm_evals.coherence.stimuli import CATEGORIES, mentions
from latentlm_evals.coherence.transformations import all_texts, entities, read_states, transform_scores
from latentlm_evals.models.interventions import Lens
from latentlm_evals.probes.context_probes import CoherenceWarning, caution

UNKNOWN = 0.01  # share of unknown tokens above which the sentences are not the model's language
# what a depth at which all nouns have one state would have been given
OF_NOUNS = {
    "stability": (*about_nouns.STABILITY, "across"),
    "detail": ("inv", "leak", "detail", "joint"),
    "units": ("effective_units", "gini", "contribution_rank"),
    "causal": SCORES,
}


@dataclass
class Found:
    """What was measured.

    Attributes:
        scores: of each task, ``section/what@depth``.
        transfer: S_ab of each concept and depth.
        samples: number of texts and of entities behind each task.
        notes: what has no meaning, or less than it seems.
    """

    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    transfer: dict[str, list[list[float]]] = field(default_factory=dict)
    samples: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, task: str, scores: dict[str, float], texts: int, things: int) -> None:
        """Scores of a task, and the texts and entities behind them."""
        self.scores.setdefault(task, {}).update(scores)
        self.samples[task] = {"original": texts, "effective": things}

    def note(self, problem: str) -> None:
        """Say it once."""
        if problem not in self.notes:
            self.notes.append(problem)

    @contextmanager
    def noted(self, where: str) -> Iterator[None]:
        """Keep the warnings about a score, with the place that they are about."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CoherenceWarning)
            yield
        for warning in caught:
            if issubclass(warning.category, CoherenceWarning):
                self.note(f"{where}: {warning.message}")
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def measure(lens: Lens, depths: list[int], options: Options, data: Any = None) -> Found:
    """Every section that was asked for."""
    found, wanted = Found(), set(options.sections)
    _nouns(lens, depths, options, found)
    for kind, rows in all_texts(options.seed, options.entities).items() if "equivariance" in wanted else ():
        said = [text for row in rows for text in row.texts.values()]
        if not _askable(lens, said, f"equivariance of {kind}", found):
            continue
        states = read_states(lens, rows, depths)
        things = len(set(entities(rows).tolist()))
        for place, depth in enumerate(depths):
            with found.noted(f"equivariance/{kind}@{depth}"):
                here = {name: state[:, place] for name, state in states.items()}
                scores = transform_scores(rows, here, kind, options.components, options.seed)
            for name, row in scores.items():
                found.add(f"equivariance/{name}@{depth}", row, len(rows), things)
    for group in _facts(lens, options, data, found):
        states = about_pairs.pair_states(lens, group, depths) if "binding" in wanted else {}
        for place, depth in enumerate(depths if states else []):
            task = f"binding/{group.name}@{depth}"
            with found.noted(task):
                here = {name: state[:, place] for name, state in states.items()}
                row = about_pairs.pair_scores(here, group, options.components, options.seed)
                found.add(task, row, len(group.texts()), len(group.a))
        if "coupling" in wanted:
            task, count = f"coupling/{group.name}", about_pairs.num_updates(group, options.updates)
            with found.noted(task):
                found.add(task, about_pairs.coupling_scores(lens, group, options.updates), count, count)
    return found


def _facts(lens: Lens, options: Options, data: Any, found: Found) -> list[Pairs]:
    """The run's own facts; otherwise countries and capitals, if the model can be asked about them."""
    asked = [section for section in ("binding", "coupling") if section in options.sections]
    if not asked:
        return []
    where = " and ".join(asked)
    own = [] if data is None else own_pairs(data, options.entities)
    if data is not None and not own:
        kind = kind_of(type(data))
        found.note(f"{where}: no_own_facts: data of kind {kind} tells no facts that can be asked from both sides")
    groups = [group for group in own if _usable(lens, group, where, found)]
    if groups:
        return groups
    world = [group for group in about_pairs.world_pairs(options.entities) if _usable(lens, group, where, found)]
    if world and data is not None:
        found.note(f"{where}: countries_instead: countries and capitals are asked, not what the run was told")
    return world


def _usable(lens: Lens, group: Pairs, where: str, found: Found) -> bool:
    if len(group.a) < about_pairs.LEAST:
        found.note(f"{where} of {group.name}: few_facts: {len(group.a)}, and {about_pairs.LEAST} are needed; left out")
        return False
    return _askable(lens, group.texts(), f"{where} of {group.name}", found)


def _askable(lens: Lens, texts: Sequence[str], where: str, found: Found) -> bool:
    """Whether the model's tokenizer knows the texts and the model can read them; noted if not."""
    share, problem = lens.unknown(texts), lens.too_long(texts)
    if share > UNKNOWN:
        found.note(f"{where}: unknown_words: {share:.0%} of the tokens are unknown to the tokenizer; left out")
    elif problem:
        found.note(f"{where}: too_short: the sentences have {problem}; left out: ask a model that reads more")
    return share <= UNKNOWN and not problem


def _nouns(lens: Lens, depths: list[int], options: Options, found: Found) -> None:
    asked = [section for section in OF_NOUNS if section in options.sections]
    rows = mentions(options.seed, options.nouns)
    if not asked or not _askable(lens, [row.text for row in rows], ", ".join(asked), found):
        return
    if "causal" in asked:
        said = [f"{question(row, 'category')} {CATEGORIES[row.category]}" for row in rows]
        said += [f"{question(row, 'number')} is" for row in rows]
        if not _askable(lens, said, "causal", found):
            asked.remove("causal")
    by_depth, base = _states(lens, depths, options), {}
    if options.base and "detail" in asked:
        other = Lens.load(options.base, options.device, options.batch_size)
        if other.backbone.num_layers != lens.backbone.num_layers:
            raise ValueError(f"base: {options.base} has {other.backbone.num_layers} blocks, not as many as the model")
        base = _states(other, depths, options)
    size = len(rows), len({row.noun for row in rows})
    for depth, nouns in by_depth.items():
        if nouns.space.is_collapsed:
            for section in asked:
                with found.noted(f"{section}@{depth}"):
                    nan = caution("collapsed", "all nouns have the same state in all contexts: there is no concept")
                    for concept in CONCEPTS:
                        found.add(f"{section}/{concept}@{depth}", dict.fromkeys(OF_NOUNS[section], nan), *size)
    whole = {depth: nouns for depth, nouns in by_depth.items() if not nouns.space.is_collapsed}
    for depth, nouns in whole.items():
        exchange = Exchange(lens, nouns, depth, options.pairs) if "causal" in asked else None
        for concept in CONCEPTS:
            parts: dict[str, Callable[[], dict[str, float]]] = {
                "stability": partial(_stability, nouns, concept, f"{concept}@{depth}", found),
                "detail": partial(about_nouns.detail_scores, nouns, concept, base.get(depth)),
                "units": partial(about_nouns.unit_scores, nouns, concept),
            }
            if exchange is not None:
                parts["causal"] = partial(exchange.scores, concept)
            for section in (name for name in parts if name in asked):
                with found.noted(f"{section}/{concept}@{depth}"):
                    found.add(f"{section}/{concept}@{depth}", parts[section](), *size)
    if "units" in asked and whole:
        with found.noted("units/category"):
            flips = about_nouns.flip_scores(lens, list(whole), whole, "category", options.noise)
        for depth, row in flips.items():
            found.add(f"units/category@{depth}", row, *size)


def _stability(nouns: Nouns, concept: str, name: str, found: Found) -> dict[str, float]:
    scores, found.transfer[name] = about_nouns.stability_scores(nouns, concept)
    return scores


def _states(lens: Lens, depths: list[int], options: Options) -> dict[int, Nouns]:
    rows = mentions(options.seed, options.nouns)
    raw = lens.states([row.text for row in rows], depths, [row.span for row in rows])
    return {depth: Nouns(rows, raw[:, k], options.components, options.seed) for k, depth in enumerate(depths)}
