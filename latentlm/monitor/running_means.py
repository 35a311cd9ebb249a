"""Exact means for the logs: sums and counts since the last line."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from latentlm.types import TermLoss


class Metrics:
    """Sums and counts by name; nothing is synchronised with the host before `means`."""

    def __init__(self):
        self.sums: dict[str, list[Any]] = {}
        self.latest: dict[str, float | str] = {}

    def add(self, name: str, value: Tensor, count: Tensor | float) -> None:
        """Add a sum over `count` values."""
        have = self.sums.setdefault(name, [0.0, 0.0])
        have[0], have[1] = have[0] + value.detach(), have[1] + count

    def report(self, reports: dict[str, TermLoss]) -> None:
        """Add all terms of a forward; one that is off has no value, and adds nothing to the loss."""
        for name, report in reports.items():
            if not report.is_off:
                self.add(f"{name}/value", report.sum, report.count)
            self.add(f"{name}/weighted", report.weight * report.sum, report.count)

    def means(self, device: torch.device, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over everything added since the last call; `reduce` sums over ranks."""
        names, sums = sorted(self.sums), self.sums
        self.sums = {}
        if not names:
            return {}
        pairs = [torch.stack([torch.as_tensor(part, device=device).float() for part in sums[name]]) for name in names]
        totals = reduce(torch.stack(pairs)).tolist()
        return {name: total / count if count else 0.0 for name, (total, count) in zip(names, totals, strict=True)}
