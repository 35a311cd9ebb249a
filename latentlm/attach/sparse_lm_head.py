"""No logits where no label follows: spans that are read alone carry none, and the output head is dear."""

from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from latentlm.attach.forward_io import IGNORE, ForwardInputs

LEAST = 1 / 8  # share of positions that must fall away: putting logits in their places costs a copy of them


def skip_unlabelled(model: Any, inputs: ForwardInputs) -> list[RemovableHandle]:
    """Let the output head read labelled positions only, in this forward; all others get logits of 0.

    Loss and gradient are those of all logits, since a loss ignores what has no label. Only for batches that bring
    segments of their own, which the collator made: nobody else gets other logits than from the plain model.

    Shapes:    hidden [b t d] -> head [m d] -> [m vocab] -> logits [b t vocab]
    Ranks:     no synchronisation; every rank calls its head once, however many positions it reads.
    Checked:   tests/attach/test_sparse_lm_head.py - loss, gradient and labelled logits those of the plain head.

    Returns:
        Handles to be removed after the forward.
    """
    labels, head = inputs.next_labels(), model.get_output_embeddings()
    if labels is None or head is None or "segments" not in (inputs.latent or {}):
        return []
    wanted = labels != IGNORE
    if not 0 < int(wanted.sum()) <= (1 - LEAST) * wanted.numel():
        return []
    return [
        head.register_forward_pre_hook(partial(_choose, wanted)),
        head.register_forward_hook(partial(_place, wanted)),
    ]


def _choose(wanted: Tensor, head: Any, args: tuple) -> tuple | None:
    if args[0].shape[:2] != wanted.shape:  # logits_to_keep: the caller has chosen
        return None
    return (args[0][wanted.to(args[0].device)], *args[1:])


def _place(wanted: Tensor, head: Any, args: tuple, output: Tensor) -> Tensor | None:
    if output.dim() != 2:
        return None
    logits = output.new_zeros(*wanted.shape, output.shape[-1])
    logits[wanted.to(output.device)] = output
    return logits
