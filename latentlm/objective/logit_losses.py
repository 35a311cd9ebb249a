"""Losses on logits of latents, a few positions at a time to save memory; and calls in the dtype of the weights."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.distributed.fsdp import call_with
from latentlm.losses import AnchorLoss, RowLoss
from latentlm.objective.terms import Predict
from latentlm.types import ForwardView

LOGITS, ROWS = 2**23, 64  # logits in one piece, unless ROWS positions have more


def called(module: Callable, values: Tensor, *more: Tensor | None) -> Tensor:
    """Call a module in the dtype of its weights: outside autocast a layer accepts no other."""
    weight = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    if weight is not None and not torch.is_autocast_enabled(values.device.type):
        values = values.to(weight.dtype)
    return module(values, *(each if each is None else each.to(values.dtype) for each in more))


def values_through(
    term: Predict, guess: Tensor, goal: Tensor, view: ForwardView, other: ForwardView
) -> Float[Tensor, " m"]:
    """A term's loss between the logits of its guesses and those of its targets (or ids), one value per position.

    Args:
        term: whose loss it is.
        guess: latents that predict, of the network.
        goal: latents that are predicted, or ids.
        view: of the network.
        other: of the network whose latents are predicted, the same one or a teacher.
    """
    readout, read_goal = view.readout, other.readout
    assert readout is not None
    assert read_goal is not None
    loss, is_data = term.loss, term.target.needs_lm_head
    assert not isinstance(loss, AnchorLoss)  # refused by the term: it compares latents
    if term.decode_with == "norm_and_lm_head":
        if view.norm is None:
            raise ValueError("decode_with: this model has no final norm; use decode_with: lm_head")
        guess = called(_fixed(view.norm) if term.source.into == "head" else view.norm, guess)
        with torch.no_grad():
            goal = goal if is_data or other.norm is None else called(other.norm, goal)

    def value(guess: Tensor, goal: Tensor) -> tuple[Tensor, int]:
        logits = readout(guess)
        with torch.no_grad():
            goal = goal if is_data else read_goal(goal)
        return loss(logits, goal), logits.shape[-1]

    if isinstance(term.loss, RowLoss):  # every position against all others
        return value(guess, goal)[0]
    return _Pieces.apply(guess, goal.detach(), value, guess.requires_grad and torch.is_grad_enabled())  # type: ignore[return-value]


def _fixed(norm: Callable) -> Callable:
    """The network's norm, which learns nothing from this."""
    assert isinstance(norm, nn.Module)
    weights = {name: weight.detach() for name, weight in norm.named_parameters()}
    return lambda values: call_with(norm, weights, (values.to(next(norm.parameters(), values).dtype),))


class _Pieces(torch.autograd.Function):
    """``value`` of a few positions at a time, keeping only the gradient of each value with respect to its latent.

    Exact, since a value depends on its own position alone and the head gets no gradient. The gradient is computed in
    the forward, while the logits exist, so that no logits are computed twice.
    """

    @staticmethod
    def forward(ctx, guess: Tensor, goal: Tensor, value: Callable, needs_grad: bool) -> Tensor:
        start, rows, values, grads = 0, ROWS, [], []
        while start < guess.shape[0] or start == 0:  # at least once: a sharded head is gathered by all ranks together
            piece = guess[start : start + rows].detach().requires_grad_(needs_grad)
            with torch.set_grad_enabled(needs_grad):
                each, width = value(piece, goal[start : start + rows])
                grads += torch.autograd.grad(each.sum(), piece) if needs_grad else ()
            values.append(each.detach())
            start, rows = start + rows, max(ROWS, LOGITS // width)
        ctx.save_for_backward(*([torch.cat(grads)] if grads else []))
        return torch.cat(values)

    @staticmethod
    def backward(ctx, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return outputs[0][:, None].to(grad.dtype) * grad, None, None, None
