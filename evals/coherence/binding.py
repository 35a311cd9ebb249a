"""Is it one fact inside, or two? Role consistency, fact unification, update coupling, bilinear inverse and composition.

Letters: ``n`` entities or facts, row i of two arrays about the same one; ``d`` width.
"""

from collections.abc import Callable

import numpy as np

from .probes import Array, caution, check_states, inverse_root

FOLDS = 5
MOVED = 0.1  # nats: a forward fact that changed less was not updated, and what followed it says nothing


def check_pairs(name: str, left: Array, right: Array, least: int = 3) -> None:
    """ValueError unless row i of one array can belong to row i of the other."""
    for side in (left, right):
        check_states(name, side)
    if left.shape != right.shape:
        raise ValueError(f"{name}: {left.shape} and {right.shape}: rows of both sides must be about the same entities")
    if len(left) < least:
        raise ValueError(f"{name}: {len(left)} pairs: give at least {least}")


def retrieval_ranks(queries: Array, keys: Array, gold: Array | None = None) -> Array:
    """Rank of each query's own key by cosine; ties share the middle rank, so equal keys are at chance."""
    scores = _unit(queries) @ _unit(keys).T
    own = scores[np.arange(len(queries)), np.arange(len(queries)) if gold is None else gold][:, None]
    near = 1e-9  # rounding must not order equal keys
    above, level = (scores > own + near).sum(1), (np.abs(scores - own) <= near).sum(1) - 1
    return 1 + above + level / 2


def mrr(ranks: Array) -> float:
    """Mean reciprocal rank."""
    return float((1 / ranks).mean())


def chance_mrr(num: int) -> float:
    """Mean reciprocal rank of a blind guess among `num`."""
    return float((1 / np.arange(1, num + 1)).mean())


def role_consistency(as_object: Array, as_subject: Array, seed: int = 0) -> dict[str, float]:
    """MRR of an entity's state as object -> its own state as subject, among all entities.

        rc_id  = MRR of cos(r_obj, r_subj)              both centred over entities
        rc_lin = MRR of cos(r_obj R, r_subj)            R orthogonal (Procrustes), fitted on the other folds' entities

    Where fewer entities than dimensions fix R, the directions that they leave open are dropped.
    Null:      `rc_chance`, a blind guess; `rc_lin_shuffled`, R fitted on entities that swapped partners.
    """
    check_pairs("role_consistency", as_object, as_subject, least=2 * FOLDS)
    left, right = as_object - as_object.mean(0), as_subject - as_subject.mean(0)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(left))
    swapped = draw.permutation(len(left))
    return {
        "rc_id": mrr(retrieval_ranks(left, right)),
        "rc_lin": _cross_fitted(left, right, right, order, _procrustes),
        "rc_lin_shuffled": _cross_fitted(left, right[swapped], right, order, _procrustes),
        "rc_chance": chance_mrr(len(left)),
    }


def fact_unification(forward: Array, reverse: Array, shared: Array | None = None) -> dict[str, float]:
    """Do the forward and the reverse query of a fact lead to one state?

        U = (mean_i cos(f_i, g_i) - mean_{j != i} cos(f_i, g_j)) / sd_{j != i} cos(f_i, g_j)

    f, g = states of the two queries, each centred over facts.
    Null:      `u_null`: the same for pairs of different facts that share an entity (`shared` [n n]), which are alike
               without being one fact; without `shared`, 0 by construction and the sd of U when facts swap partners.

    Args:
        forward: states ``[n d]`` of the forward query of fact i.
        reverse: those of its reverse query.
        shared: true where facts i and j are different and have an entity in common.
    """
    check_pairs("fact_unification", forward, reverse)
    cosines = _unit(forward - forward.mean(0)) @ _unit(reverse - reverse.mean(0)).T
    num = len(cosines)
    different = ~np.eye(num, dtype=bool)
    unrelated = different if shared is None else different & ~shared
    if not unrelated.any():
        raise ValueError("fact_unification: every fact shares an entity with every other: nothing to compare with")
    base, spread = cosines[unrelated].mean(), cosines[unrelated].std()
    if spread < 1e-9:
        nan = caution("collapsed", "all facts have the same state: they can be neither one nor two")
        return {"u": nan, "u_null": nan, "u_null_sd": nan, "u_mrr": nan, "u_mrr_chance": chance_mrr(num)}
    draw = np.random.default_rng(0)
    swaps = [cosines[np.arange(num), draw.permutation(num)].mean() for _ in range(200)]
    paired = different & shared if shared is not None else None
    null = (cosines[paired].mean() - base) / spread if paired is not None and paired.any() else 0.0
    return {
        "u": float((cosines.diagonal().mean() - base) / spread),
        "u_null": float(null),
        "u_null_sd": float(np.std(swaps) / spread),
        "u_mrr": mrr(retrieval_ranks(forward - forward.mean(0), reverse - reverse.mean(0))),
        "u_mrr_chance": chance_mrr(num),
    }


def update_coupling(forward: Array, reverse: Array, unrelated: Array) -> dict[str, float]:
    """How much of an update of the forward fact arrives at the reverse one, beyond what arrives everywhere.

        T = (sum_i dlogP_i(reverse) - sum_i dlogP_i(unrelated)) / sum_i dlogP_i(forward)

    Null:      `t_unrelated`, the share that arrives at unrelated facts (already taken off T).

    Args:
        forward: change of log-probability of the fact that was updated, ``[n]``.
        reverse: change of its reverse.
        unrelated: mean change of the reverse questions of other facts after the same update, ``[n]``.
    """
    for name, change in (("forward", forward), ("reverse", reverse), ("unrelated", unrelated)):
        if not np.isfinite(change).all():
            raise ValueError(f"update_coupling: {name} holds NaN or infinity: the update diverged, take smaller steps")
    moved = float(np.mean(forward))
    if abs(moved) < MOVED:
        nan = caution("no_update", f"the forward facts changed by {moved:+.3f} nats: take more or larger steps")
        return {"t": nan, "t_unrelated": nan, "t_stderr": nan, "delta_forward": moved}
    extra = (reverse - unrelated) / moved
    return {
        "t": float(extra.mean()),
        "t_unrelated": float(unrelated.mean() / moved),
        "t_stderr": float(extra.std(ddof=1) / np.sqrt(len(extra))) if len(extra) > 1 else float("nan"),
        "delta_forward": moved,
    }


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
    s, o = _whiten(subjects), _whiten(objects)
    back_o, back_s = _whiten(inverse_objects, like=objects), _whiten(inverse_subjects, like=subjects)
    draw = np.random.default_rng(seed)
    order, swap = draw.permutation(len(s)), draw.permutation(len(s))
    found = {}
    for name, partner in (("", o), ("_shuffled", o[swap])):
        maps = {tuple(test): relation_map(s[train], partner[train]) for train, test in _folds(order)}
        ahead, back = np.empty(len(s)), np.empty(len(s))
        for test, m in maps.items():
            rows = np.array(test)
            ahead[rows] = retrieval_ranks(s[rows] @ m.T, o, rows)
            back[rows] = retrieval_ranks(back_o[rows] @ m, back_s, rows)
        found |= {f"bilinear{name}": mrr(ahead), f"bilinear_inverse{name}": mrr(back)}
    return found | {"bilinear_chance": chance_mrr(len(s))}


def bilinear_composition(first: Array, middle: Array, last: Array, seed: int = 0) -> dict[str, float]:
    """MRR of M_2 M_1 s -> the end of the chain s -r1-> m -r2-> e, both maps fitted on other chains.

    Null:      `composition_shuffled`: M_2 fitted on pairs that swapped ends.
    """
    check_pairs("bilinear_composition", first, middle, least=2 * FOLDS)
    check_pairs("bilinear_composition", middle, last, least=2 * FOLDS)
    a, b, c = _whiten(first), _whiten(middle), _whiten(last)
    draw = np.random.default_rng(seed)
    order, swap = draw.permutation(len(a)), draw.permutation(len(a))
    found = {}
    for name, ends in (("", c), ("_shuffled", c[swap])):
        ranks = np.empty(len(a))
        for train, test in _folds(order):
            both = relation_map(b[train], ends[train]) @ relation_map(a[train], b[train])
            ranks[test] = retrieval_ranks(a[test] @ both.T, c, test)
        found[f"composition{name}"] = mrr(ranks)
    return found | {"composition_chance": chance_mrr(len(a))}


def _cross_fitted(left: Array, fit_on: Array, right: Array, order: Array, fit: Callable) -> float:
    ranks = np.empty(len(left))
    for train, test in _folds(order):
        ranks[test] = retrieval_ranks(left[test] @ fit(left[train], fit_on[train]), right, test)
    return mrr(ranks)


def _folds(order: Array) -> list[tuple[Array, Array]]:
    parts = np.array_split(order, FOLDS)
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), part) for i, part in enumerate(parts)]


def _procrustes(left: Array, right: Array) -> Array:
    u, size, v = np.linalg.svd(left.T @ right)
    known = size > size[0] * 1e-6 if size[0] > 0 else np.zeros(len(size), bool)
    return u[:, known] @ v[known]


def _whiten(states: Array, like: Array | None = None) -> Array:
    """Centred on its own mean, scaled by the spread of `like`."""
    source = states if like is None else like
    covariance = np.cov(source, rowvar=False)
    # a tenth of the mean variance: with few entities small directions are noise that plain whitening would blow up
    ridge = 0.1 * np.trace(covariance) / len(covariance) + 1e-12
    return (states - states.mean(0)) @ inverse_root(covariance + ridge * np.eye(len(covariance)))


def _unit(rows: Array) -> Array:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
