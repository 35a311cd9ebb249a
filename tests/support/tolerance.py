"""How near is near enough: error is judged against the error of the plain formula in the same precision."""

import torch
from torch import Tensor


def assert_as_accurate(ours, naive, *inputs: Tensor, dtype: torch.dtype = torch.bfloat16) -> None:
    """|exact - ours| <= |exact - naive in dtype| + eps, exact being naive in float64 on the rounded inputs."""
    rounded = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    exact = naive(*[x.double() if x.is_floating_point() else x for x in rounded])
    allowed = (exact - naive(*rounded).double()).abs() + 1e-6 * (1 + exact.abs())
    error = (exact - ours(*rounded).double()).abs()
    assert (error <= allowed).all(), f"error {error.max():.3g} where the plain formula makes {allowed.max():.3g}"
