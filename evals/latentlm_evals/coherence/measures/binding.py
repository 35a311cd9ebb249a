"""Is it one fact inside, or two? Role consistency, fact unification, update coupling.

Letters: ``n`` entities or facts, row i of two arrays about the same one; ``d`` width.
"""

import numpy as np

from latentlm_evals.coherence.measures.bilinear import FOLDS
from latentlm_evals.probes.context_probes import caution
from latentlm_evals.statistics.arrays import Array, Booleans, Labels, check_pairs, is_flat, unit
from latentlm_evals.statistics.bootstrap import draws, interval, mean_interval
from latentlm_evals.statistics.folds import cross_folds
from latentlm_evals.statistics.ranking import by_cosine, chance_mrr

MOVED = 0.1  # nats: a forward fact that changed less was not updated, and what followed it says nothing


def role_ranks(as_object: Array, as_subject: Array, seed: int = 0) -> dict[str, Array]:
    """Reciprocal rank ``[n]`` of an entity's state as object -> its own state as subject, among all entities.

        rc_id  = of cos(r_obj, r_subj)              both centred over entities
        rc_lin = of cos(r_obj R, r_subj)            R orthogonal (Procrustes), fitted on the other folds' entities

    Where fewer entities than dimensions fix R, the directions that they leave open are dropped.
    Null:      `rc_lin_shuffled`, R fitted on entities that swapped partners.
    """
    check_pairs("role_consistency", as_object, as_subject, least=2 * FOLDS)
    if is_flat(as_object, as_subject):
        nan = caution("collapsed", "all entities have the same state in one of the roles: none can be found again")
        return dict.fromkeys(("rc_id", "rc_lin", "rc_lin_shuffled"), np.full(len(as_object), nan))
    left, right = as_object - as_object.mean(0), as_subject - as_subject.mean(0)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(left))
    swapped = draw.permutation(len(left))
    return {
        "rc_id": by_cosine(left, right),
        "rc_lin": _cross_fitted(left, right, right, order),
        "rc_lin_shuffled": _cross_fitted(left, right[swapped], right, order),
    }


def role_consistency(
    as_object: Array, as_subject: Array, seed: int = 0, clusters: Labels | None = None
) -> dict[str, float]:
    """MRR of `role_ranks`, beside `rc_chance`, a blind guess; `clusters` are drawn whole for the intervals."""
    return consistency_scores(role_ranks(as_object, as_subject, seed), clusters)


def consistency_scores(ranks: dict[str, Array], clusters: Labels | None = None) -> dict[str, float]:
    """Means of reciprocal ranks ``[n]`` and their intervals."""
    found = {name: float(values.mean()) for name, values in ranks.items()}
    for name in ("rc_id", "rc_lin"):
        found |= mean_interval(name, ranks[name], clusters)
    return found | {"rc_chance": chance_mrr(len(ranks["rc_id"]))}


def fact_unification(
    forward: Array, reverse: Array, shared: Booleans | None = None, clusters: Labels | None = None
) -> dict[str, float]:
    """Do the forward and the reverse query of a fact lead to one state?

        U = (mean_i cos(f_i, g_i) - mean_{j != i} cos(f_i, g_j)) / sd_{j != i} cos(f_i, g_j)

    f, g = states of the two queries, each centred over facts.
    Null:      `u_null`: the same for pairs of different facts that share an entity (`shared` [n n]), which are alike
               without being one fact; left out where none do. `u_null_sd`: sd of U when facts swap partners.
    Interval:  bootstrap over clusters; the mean and sd of unrelated facts are drawn with them.

    Args:
        forward: states ``[n d]`` of the forward query of fact i.
        reverse: those of its reverse query.
        shared: true where facts i and j are different and have an entity in common.
        clusters: number of the group of facts, e.g. a family, that is drawn whole; None: each fact by itself.
    """
    check_pairs("fact_unification", forward, reverse)
    num = len(forward)
    different = ~np.eye(num, dtype=bool)
    paired = different & shared if shared is not None else np.zeros_like(different)
    unrelated = different & ~paired
    if not unrelated.any():
        raise ValueError("fact_unification: every fact shares an entity with every other: nothing to compare with")
    names = ["u", "u_low", "u_high", "u_null_sd", "u_mrr", *(["u_null"] if paired.any() else [])]
    cosines = unit(forward - forward.mean(0)) @ unit(reverse - reverse.mean(0)).T
    base, spread = cosines[unrelated].mean(), cosines[unrelated].std()
    if is_flat(forward, reverse) or spread < 1e-9:
        nan = caution("collapsed", "all facts have the same state: they can be neither one nor two")
        return dict.fromkeys(names, nan) | {"u_mrr_chance": chance_mrr(num)}
    draw = np.random.default_rng(0)
    swaps = [cosines[np.arange(num), draw.permutation(num)].mean() for _ in range(200)]
    counts = draws(np.arange(num) if clusters is None else clusters)
    found = {
        "u": float((cosines.diagonal().mean() - base) / spread),
        "u_null_sd": float(np.std(swaps) / spread),
        "u_mrr": float(by_cosine(forward - forward.mean(0), reverse - reverse.mean(0)).mean()),
        "u_mrr_chance": chance_mrr(num),
    } | interval("u", _redrawn(cosines, unrelated, counts))
    return found | ({"u_null": float((cosines[paired].mean() - base) / spread)} if paired.any() else {})


def _redrawn(cosines: Array, unrelated: Booleans, counts: Array) -> Array:
    """U ``[b]`` of drawn facts, from how often each was drawn ``[b n]``."""

    def mean(values: Array) -> Array:
        return np.einsum("bi,ij,bj->b", counts, values * unrelated, counts, optimize=True) / pairs

    pairs = np.maximum(np.einsum("bi,ij,bj->b", counts, unrelated.astype(float), counts, optimize=True), 1e-12)
    base = mean(cosines)
    spread = np.sqrt(np.maximum(mean(cosines**2) - base**2, 0))
    own = counts @ cosines.diagonal() / counts.sum(1)
    return np.divide(own - base, spread, out=np.full(len(own), np.nan), where=spread > 1e-9)


def update_coupling(forward: Array, reverse: Array, unrelated: Array) -> dict[str, float]:
    """How much of an update of the forward fact arrives at the reverse one, beyond what arrives everywhere.

        T = (sum_i dlogP_i(reverse) - sum_i dlogP_i(unrelated)) / sum_i dlogP_i(forward)

    Null:      `t_unrelated`, the share that arrives at unrelated facts (already taken off T).
    Interval:  bootstrap over updates.

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
        gone = dict.fromkeys(("t", "t_unrelated", "t_stderr", "t_low", "t_high"), nan)
        return gone | {"delta_forward": moved}
    extra = (reverse - unrelated) / moved
    counts = draws(np.arange(len(forward)))
    total = counts @ forward
    drawn = np.divide(
        counts @ (reverse - unrelated),
        total,
        out=np.full(len(counts), np.nan),
        where=np.abs(total) >= MOVED * counts.sum(1),
    )
    return {
        "t": float(extra.mean()),
        "t_unrelated": float(unrelated.mean() / moved),
        "t_stderr": float(extra.std(ddof=1) / np.sqrt(len(extra))) if len(extra) > 1 else float("nan"),
        "delta_forward": moved,
    } | interval("t", drawn)


def _cross_fitted(left: Array, fit_on: Array, right: Array, order: Labels) -> Array:
    ranks = np.empty(len(left))
    for train, test in cross_folds(order, FOLDS):
        ranks[test] = by_cosine(left[test] @ _procrustes(left[train], fit_on[train]), right, test)
    return ranks


def _procrustes(left: Array, right: Array) -> Array:
    u, size, v = np.linalg.svd(left.T @ right)
    known = size > size[0] * 1e-6 if size[0] > 0 else np.zeros(len(size), bool)
    return u[:, known] @ v[known]
