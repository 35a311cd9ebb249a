"""Plain formulas to compare with, and how near is near enough: error is judged against theirs in the same precision."""

import torch
from torch import Tensor


def assert_as_accurate(ours, naive, *inputs: Tensor, dtype: torch.dtype = torch.bfloat16) -> None:
    """|exact - ours| <= |exact - naive in dtype| + eps, exact being naive in float64 on the rounded inputs."""
    rounded = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    exact = naive(*[x.double() if x.is_floating_point() else x for x in rounded])
    allowed = (exact - naive(*rounded).double()).abs() + 1e-6 * (1 + exact.abs())
    error = (exact - ours(*rounded).double()).abs()
    assert (error <= allowed).all(), f"error {error.max():.3g} where the plain formula makes {allowed.max():.3g}"


def naive_sinkhorn(logits, temperature=0.05, iterations=3):
    m, k = logits.shape
    q = [[(x / temperature).exp() for x in row] for row in logits]
    total = sum(sum(row) for row in q)
    q = [[x / total for x in row] for row in q]
    for _ in range(iterations):
        columns = [sum(q[i][j] for i in range(m)) for j in range(k)]
        q = [[q[i][j] / (columns[j] * k) for j in range(k)] for i in range(m)]
        rows = [sum(row) for row in q]
        q = [[x / (rows[i] * m) for x in q[i]] for i in range(m)]
    return torch.stack([torch.stack(row) for row in q]) * m
