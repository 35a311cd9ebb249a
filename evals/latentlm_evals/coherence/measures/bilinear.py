"""Is a relation one map of states, its inverse the transpose, a chain the product? Bilinear relation scores.

Letters: ``n`` pairs, row i of all arrays about the same one; ``d`` width.
"""

import numpy as np

from latentlm_evals.probes.context_probes import caution, inverse_root
from latentlm_evals.statistics.arrays import Array, check_pairs, is_flat
from latentlm_evals.statistics.folds import cross_folds
from latentlm_evals.statistics.ranking import by_cosine, chance_mrr

FOLDS = 5


def relation_map(subjects: Array, objects: Array, penalty: float = 1.0) -> Array:
    """M of ``o = M s`` by ridge, for whitened centred states; `penalty` is in units of one training pair.

    Whitened on both sides, M is the cross-covariance up to the penalty: its transpose is the map of the inverse.
    """
    num = len(subjects)
    gram = subjects.T @ subjects + penalty * np.eye(subjects.shape[1])
    return np.linalg.solve(gram * (1 / num), subjects.T @ objects / num).T


def bilinear_inverse(
    subjects: Array, objects: Array, inverse_objects: Array, inverse_subjects: Array, seed: int = 0
) -> dict[str, float]:
    """M_r fitted on r's train pairs; does its transpose answer r^{-1}, in other contexts?

        bilinear         MRR of M s -> o among all objects, test entities
        bilinear_inverse MRR of M' o' -> s' among all subjects, both in the other role

    Null:      `bilinear_shuffled`, `bilinear_inverse_shuffled`: M fitted on pairs that swapped objects.

    Args:
        subjects: states ``[n d]`` of the things that r starts from.
        objects: states of what they are related to, from other texts.
        inverse_objects: states of the same objects in the other role.
        inverse_subjects: those of the subjects in the other role.
        seed: of folds and swaps.
    """
    check_pairs("bilinear_inverse", subjects, objects, least=2 * FOLDS)
    check_pairs("bilinear_inverse", inverse_objects, inverse_subjects, least=2 * FOLDS)
    if is_flat(subjects, objects, inverse_objects, inverse_subjects):
        nan = caution("collapsed", "all pairs have the same state in one of their roles: there is nothing to map")
        names = ("bilinear", "bilinear_inverse")
        found = dict.fromkeys([*names, *(f"{name}_shuffled" for name in names)], nan)
        return found | {"bilinear_chance": chance_mrr(len(subjects))}
    s, o = _whiten(subjects), _whiten(objects)
    back_o, back_s = _whiten(inverse_objects, like=objects), _whiten(inverse_subjects, like=subjects)
    draw = np.random.default_rng(seed)
    order, swap = draw.permutation(len(s)), draw.permutation(len(s))
    found = {}
    for name, partner in (("", o), ("_shuffled", o[swap])):
        maps = {tuple(test): relation_map(s[train], partner[train]) for train, test in cross_folds(order, FOLDS)}
        ahead, back = np.empty(len(s)), np.empty(len(s))
        for test, m in maps.items():
            rows = np.array(test)
            ahead[rows] = by_cosine(s[rows] @ m.T, o, rows)
            back[rows] = by_cosine(back_o[rows] @ m, back_s, rows)
        found |= {f"bilinear{name}": float(ahead.mean()), f"bilinear_inverse{name}": float(back.mean())}
    return found | {"bilinear_chance": chance_mrr(len(s))}


def bilinear_composition(first: Array, middle: Array, last: Array, seed: int = 0) -> dict[str, float]:
    """MRR of M_2 M_1 s -> the end of the chain s -r1-> m -r2-> e, both maps fitted on other chains.

    Null:      `composition_shuffled`: M_2 fitted on pairs that swapped ends.
    """
    check_pairs("bilinear_composition", first, middle, least=2 * FOLDS)
    check_pairs("bilinear_composition", middle, last, least=2 * FOLDS)
    if is_flat(first, middle, last):
        nan = caution("collapsed", "all chains have the same state at one of their places: there is nothing to map")
        return {"composition": nan, "composition_shuffled": nan, "composition_chance": chance_mrr(len(first))}
    a, b, c = _whiten(first), _whiten(middle), _whiten(last)
    draw = np.random.default_rng(seed)
    order, swap = draw.permutation(len(a)), draw.permutation(len(a))
    found = {}
    for name, ends in (("", c), ("_shuffled", c[swap])):
        ranks = np.empty(len(a))
        for train, test in cross_folds(order, FOLDS):
            both = relation_map(b[train], ends[train]) @ relation_map(a[train], b[train])
            ranks[test] = by_cosine(a[test] @ both.T, c, test)
        found[f"composition{name}"] = float(ranks.mean())
    return found | {"composition_chance": chance_mrr(len(a))}


def _whiten(states: Array, like: Array | None = None) -> Array:
    """Centred on its own mean, scaled by the spread of `like`."""
    source = states if like is None else like
    covariance = np.cov(source, rowvar=False)
    # a tenth of the mean variance: with few entities small directions are noise that plain whitening would blow up
    ridge = 0.1 * np.trace(covariance) / len(covariance) + 1e-12
    return (states - states.mean(0)) @ inverse_root(covariance + ridge * np.eye(len(covariance)))
