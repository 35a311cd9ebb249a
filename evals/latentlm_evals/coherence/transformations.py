"""Section about transformed sentences: equivariance and group laws, by one map for each transformation."""

from collections.abc import Callable, Sequence

import numpy as np

from latentlm_evals.coherence.measures.equivariance import Action, Frame, equivariance, fit_action, law
from latentlm_evals.coherence.stimuli import Moved, numbers, sentences, swaps
from latentlm_evals.models.interventions import Lens
from latentlm_evals.probes.context_probes import caution
from latentlm_evals.probes.pca import Space
from latentlm_evals.statistics.arrays import ROUNDING, Array, Labels

NEW_CONTEXT = 2  # maps are fitted in the others and tested here, on entities of the test half
# name -> (sentences, from, to)
ACTIONS = {
    "past": ("sentences", "plain", "past"),
    "negated": ("sentences", "plain", "negated"),
    "plural": ("sentences", "plain", "plural"),
    "swap": ("swaps", "plain", "swapped"),
    "next": ("numbers", "plain", "next"),
}
# name -> (the maps in order, the one map they should equal or None, for the identity)
LAWS = {
    "past": ([("plain", "past"), ("past", "plain")], None),
    "negated": ([("plain", "negated"), ("negated", "plain")], None),
    "plural": ([("plain", "plural"), ("plural", "plain")], None),
    "swap": ([("plain", "swapped"), ("plain", "swapped")], None),
    "next": ([("plain", "next"), ("plain", "next")], ("plain", "next next")),
    "past after plural": ([("plain", "plural"), ("plain", "past")], ("plain", "past plural")),
    "past after negated": ([("plain", "negated"), ("plain", "past")], ("plain", "past negated")),
}
MAKERS: dict[str, Callable[[int, int], list[Moved]]] = {"sentences": sentences, "swaps": swaps, "numbers": numbers}
OF = {"swap": "swaps", "next": "numbers"}


def all_texts(seed: int, count: int) -> dict[str, list[Moved]]:
    """The generated entities of every kind of sentence."""
    return {kind: make(seed, count) for kind, make in MAKERS.items()}


def read_states(lens: Lens, rows: Sequence[Moved], depths: Sequence[int]) -> dict[str, Array]:
    """States ``[n l d]`` of every variant at the last token."""
    names = list(rows[0].texts)
    texts = [row.texts[name] for name in names for row in rows]
    found = lens.states(texts, depths, [(0, len(text)) for text in texts])
    return dict(zip(names, found.reshape(len(names), len(rows), *found.shape[1:]), strict=True))


def transform_scores(rows: Sequence[Moved], states: dict[str, Array], kind: str, components: int, seed: int) -> dict:
    """Scores of every transformation of one kind of sentence, from the states ``[n d]`` of one depth."""
    train = np.array([not row.is_test and row.context != NEW_CONTEXT for row in rows])
    test = np.array([row.is_test and row.context == NEW_CONTEXT for row in rows])
    pooled = np.concatenate([state[train] for state in states.values()])
    # a map has r x r entries: with more directions than pairs it is all prior
    rank = min(components, int(train.sum()) // 2)
    space = Space.fit(pooled, rank)
    coordinates = {name: space(state) for name, state in states.items()}
    alike = _alike(rows, coordinates)
    z = _around_contexts(rows, coordinates)
    frame = Frame.of(np.concatenate([state[train] for state in z.values()]), min(16, rank))
    fitted: dict[tuple[str, str], Action] = {}

    def action(pair: tuple[str, str]) -> Action:
        if pair not in fitted:
            fitted[pair] = fit_action(z[pair[0]][train], z[pair[1]][train])
        return fitted[pair]

    scores: dict[str, dict[str, float]] = {}
    nan = float("nan")
    if alike:
        which = ", ".join(name for name in states if name in alike)
        caution("collapsed", f"all sentences of a context have the same state ({which}): nothing could be moved")
    for name, (of, before, after) in ACTIONS.items():
        if of == kind and alike & {before, after}:
            scores[name] = dict.fromkeys(("eq", "eq_gain", "h@1", "mrr", "moved"), nan)
        elif of == kind:
            real = equivariance(action((before, after)), z[before][test], z[after][test], entities(rows)[test])
            order = np.random.default_rng(seed).permutation(int(train.sum()))
            null = fit_action(z[before][train], z[after][train][order])
            shuffled = equivariance(null, z[before][test], z[after][test])
            scores[name] = real | {f"{key}_shuffled": shuffled[key] for key in ("eq", "eq_gain", "h@1", "mrr")}
    for name, (product, single) in LAWS.items():
        if OF.get(name, "sentences") == kind:
            found = {"error": nan, "gain": nan}
            if not alike & {variant for pair in [*product, single or ()] for variant in pair}:
                found = law([action(pair) for pair in product], None if single is None else action(single), frame)
            scores.setdefault(name, {}).update({f"law_{key}": value for key, value in found.items()})
    return scores


def entities(rows: Sequence[Moved]) -> Labels:
    """Number ``[n]`` of what each row is about: two people who change roles are the same two in either order."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(row.entity, len(numbers)) for row in rows])


def _around_contexts(rows: Sequence[Moved], states: dict[str, Array]) -> dict[str, Array]:
    """States around the mean of their context and half, over all variants: a new context has an offset of its own.

    Nothing is taken from what a map has to predict: all variants of a context are moved alike.
    """
    places = np.array([2 * row.context + row.is_test for row in rows])
    moved = {name: state.copy() for name, state in states.items()}
    for place in np.unique(places):
        centre = np.mean([state[places == place].mean(0) for state in states.values()], axis=0)
        for state in moved.values():
            state[places == place] -= centre
    return moved


def _alike(rows: Sequence[Moved], states: dict[str, Array]) -> set[str]:
    """Variants that all entities of a context have the same state in: no map can be told from a shift there."""
    floor = ROUNDING * max(float(np.abs(state).max()) for state in states.values())
    contexts = np.array([row.context for row in rows])
    return {
        name
        for name, state in states.items()
        if all(np.ptp(state[contexts == context], axis=0).max() <= floor for context in np.unique(contexts))
    }
