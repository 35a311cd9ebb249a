"""Hidden states of blocks: collected, checked, and cached on disk under a key of weights and inputs."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn, stack, uint8

from latentlm.backbones.collect_states import collect_states


def tapped(
    forward: Callable[[], object],
    layers: Sequence[nn.Module],
    depths: Sequence[int],
    gather: Callable[[Tensor], Tensor],
) -> Tensor:
    """States ``[b l ...]`` of one forward, float32 on the CPU; see `collect_states`."""
    return stack(collect_states(forward, layers, depths, lambda state: gather(state).float().cpu(), stop=True), 1)


def check_depths(name: str, num_layers: int, depths: Sequence[int] | None) -> list[int]:
    """The depths asked for, all without any; ValueError where the network has none such."""
    depths = list(range(num_layers + 1)) if depths is None else list(depths)
    if bad := [depth for depth in depths if not 0 <= depth <= num_layers]:
        raise ValueError(f"depths: {name} has {num_layers} blocks, not {bad[0]}; use 0..{num_layers}")
    if not depths:
        raise ValueError("depths: none; name one at least or leave it out")
    return depths


def check_finite(name: str, states: Tensor, depths: Sequence[int], said: Callable[[int], str]) -> Tensor:
    """The states ``[n l ...]``; ValueError that names depth and input where one is not finite."""
    if not states.isfinite().all():
        i, k = (~states.isfinite()).nonzero()[0, :2].tolist()
        where = f"states at depth {depths[k]} of {said(i)}"
        raise ValueError(f"{name}: {where} are not finite: the weights have diverged, nothing can be read")
    return states


def fingerprint(model: nn.Module) -> str:
    """Of all weights and buffers."""
    digest = hashlib.blake2b()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(uint8).numpy().data)
    return digest.hexdigest()


def kept(folder: Path, asked: bytes, compute: Callable[[], Tensor]) -> Tensor:
    """The states that were asked for: from the disk if they lie there, else computed and written."""
    file = folder / f"{hashlib.sha256(asked).hexdigest()[:32]}.safetensors"
    if not file.is_file():
        found = compute()
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        save_file({"states": found.contiguous()}, partial)
        partial.replace(file)  # a reader never sees half a file
    return load_file(file)["states"]
