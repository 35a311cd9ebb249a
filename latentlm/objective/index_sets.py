"""Which named index sets the terms of an objective read."""

from typing import Any

from latentlm.components.positions import At, Next
from latentlm.components.targets import Ema, Frozen, Pixels, TokenEmbeddings, Tokens
from latentlm.objective.terms import Predict, Regularize


def sets_read(term: Any) -> list[str]:
    """Named sets that a term reads."""
    return [at for places in places_read(term) for at in places if isinstance(at, str)]


def places_read(term: Any) -> tuple[list[At], list[At]]:
    """Where a term reads the network itself (or its data), and where its copies."""
    own: list[At] = []
    copies: list[At] = []
    if isinstance(term, Predict | Regularize):
        (own if term.source.of == "network" else copies).append(term.source.at)
    elif not isinstance(term.align, Next):
        own.append(term.align.source)
        (own if term.target.teacher == "online" else copies).append(term.align.target)
    if isinstance(term, Predict):
        own += [] if term.distance_to is None else [term.distance_to]
        target: Any = term.target
        if isinstance(target, TokenEmbeddings | Tokens) and target.ids is not None:
            own.append(target.ids)
        elif isinstance(target, Tokens | Pixels):
            own.append(target.at)
        else:
            assign = getattr(target, "assign", None)
            read = copies if isinstance(target, Ema | Frozen) else own
            read += [
                target.tap.at,
                *([assign.per_position_of] if assign is not None and assign.per_position_of is not None else []),
            ]
    return own, copies
