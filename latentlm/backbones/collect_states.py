"""Hidden states of a forward, collected where they arise."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from latentlm.backbones.blocks import hidden_state


class _DeepEnough(Exception):  # noqa: N818 - not an error
    """Raised after the deepest requested depth: what is above it is not computed."""


def collect_states(
    forward: Callable[[], object],
    layers: Sequence[nn.Module],
    depths: Sequence[int],
    keep: Callable[[Tensor], Tensor],
    *,
    stop: bool = False,
) -> list[Tensor]:
    """States of one forward, in the order of `depths`.

    Args:
        forward: runs the network.
        layers: its blocks in order.
        depths: which states; 0 is the input of the first block, k the raw output of block k.
        keep: what is kept of a state ``[b t d]``; the rest never leaves its block.
        stop: end the forward at the deepest depth; only for networks without hooks that wait for the end.
    """
    found: dict[int, Tensor] = {}

    def collect(depth: int, state: Tensor) -> None:
        if depth in found:
            raise ValueError(
                f"block {max(depth, 1)} ran twice in one forward (a looped network?); its depth is not one"
            )
        found[depth] = keep(state)
        if stop and depth == max(depths):
            raise _DeepEnough

    def before_first(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        collect(0, args[0] if args else kwargs["hidden_states"])

    def hook(depth: int) -> Any:
        if depth:
            return layers[depth - 1].register_forward_hook(lambda module, args, out: collect(depth, hidden_state(out)))
        return layers[0].register_forward_pre_hook(before_first, with_kwargs=True)

    handles = [hook(depth) for depth in dict.fromkeys(depths)]
    try:
        forward()
    except _DeepEnough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [found[depth] for depth in depths]
