"""States of known truth: a concept in one direction, a partly shared one, one for each context, none, bare tokens."""

import numpy as np
from latentlm_evals.probes.context_probes import Family


def unit(vector):
    return vector / np.linalg.norm(vector)


def binary_families(kind, seed, num=4, rows=400, dim=64, aligned=False):
    """The known-answer table's set-up: classes at +-2 along the family's direction, noise 1, an offset a family.

    Aligned: everything is turned so that the shared direction is the first unit.
    """
    draw = np.random.default_rng(seed)
    shared, families = unit(draw.standard_normal(dim)), []
    turn = np.linalg.qr(np.column_stack([shared, np.eye(dim)[:, 1:]]))[0] if aligned else np.eye(dim)
    for _ in range(num):
        own = unit(draw.standard_normal(dim))
        direction = {"unified": shared, "partial": unit(shared + 0.12 * draw.standard_normal(dim)), "fractured": own}
        labels = draw.integers(0, 2, rows)
        noise, offset = draw.standard_normal((rows, dim)), draw.standard_normal(dim)
        if kind == "collapsed":
            states = 1e-3 * noise + np.ones(dim)
        elif kind == "tokens":  # who it is and where, but nothing of the concept
            states = 2 * np.eye(dim)[draw.integers(0, dim, rows)] + 0.1 * noise + offset
        else:
            states = np.outer(4 * labels - 2.0, direction[kind]) + noise + offset
        states = states @ turn
        half = rows // 2
        families.append(Family(states[:half], labels[:half], states[half:], labels[half:]))
    return families


def class_families(kind, seed, classes=4, num=4, rows=400, dim=64):
    """Several classes: the same class means in all families, or others in each."""
    draw = np.random.default_rng(seed)
    shared, families = 3 * draw.standard_normal((classes, dim)) / np.sqrt(dim), []
    for _ in range(num):
        own = 3 * draw.standard_normal((classes, dim)) / np.sqrt(dim)
        labels = draw.integers(0, classes, rows)
        means = {"unified": shared, "partial": 0.7 * shared + 0.7 * own, "fractured": own, "permuted": shared}[kind]
        means = means[draw.permutation(classes)] if kind == "permuted" else means
        states = means[labels] + 0.5 * draw.standard_normal((rows, dim)) + draw.standard_normal(dim)
        half = rows // 2
        families.append(Family(states[:half], labels[:half], states[half:], labels[half:]))
    return families
