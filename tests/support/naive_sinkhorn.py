"""Sinkhorn written as loops over the equation."""

import torch


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
