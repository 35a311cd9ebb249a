"""All terms of an objective as a module: shared heads, terms by name, and their weights."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentlm.components.heads import Compare, Head
from latentlm.components.predictors import Shared
from latentlm.components.tap import Widths
from latentlm.components.transformer_predictor import LinearOn
from latentlm.config.schema import ConfigError
from latentlm.objective.logit_losses import called
from latentlm.objective.predict import PredictTerm
from latentlm.objective.regularize import RegularizeTerm
from latentlm.objective.term_weights import TermWeights
from latentlm.objective.terms import PlainTerm, Predict
from latentlm.types import ForwardView, StepContext, TermLoss

Term = PredictTerm | RegularizeTerm


class Terms(nn.Module):
    """The terms by name.

    Args:
        specs: plain terms with depths as block numbers, as `Objective.resolve` returns them.
        heads: shared heads by name.
        hidden: width of the network's states.
        embedding: width of its input embeddings.
        pixels: input values of a position, where the network reads pixels.
    """

    def __init__(
        self,
        specs: Mapping[str, PlainTerm],
        heads: Mapping[str, Head],
        hidden: int,
        embedding: int,
        pixels: int | None = None,
    ):
        super().__init__()
        self.heads = nn.ModuleDict({name: head.build(hidden) for name, head in heads.items()})
        widths = Widths(hidden, embedding, {name: head.dim for name, head in heads.items()}, pixels)
        built: dict[str, nn.Module] = {}
        for name in sorted(specs, key=lambda name: _borrows(specs[name])):  # after the terms that lend
            spec = specs[name]
            predicts = isinstance(spec, Predict)
            built[name] = PredictTerm(name, spec, widths, built) if predicts else RegularizeTerm(name, spec, widths)
        self.terms = nn.ModuleDict({name: built[name] for name in specs})
        self.weights = TermWeights(specs)
        self._held = [each for each in self.heads.modules() if isinstance(each, Compare) and each.frozen_steps]

    def __getitem__(self, name: str) -> Term:
        return self.terms[name]  # type: ignore[return-value]

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def items(self) -> Iterator[tuple[str, Term]]:
        """Names and terms."""
        return ((name, self[name]) for name in self.terms)

    def calls(self) -> dict[str, partial]:
        """The shared heads as functions, for a `StepContext`."""
        return {name: partial(called, head) for name, head in self.heads.items()}

    def counts(self, view: ForwardView, running: Collection[str] | None = None) -> dict[str, Tensor]:
        """How many values each term averages, 0 for those not `running`; needs the positions, not the states."""
        nothing = view.segments.new_zeros(())
        on = self.terms if running is None else running
        return {name: term.count(view) if name in on else nothing for name, term in self.items()}

    def forward(self, context: StepContext) -> dict[str, TermLoss]:
        """Sum, count and weight of every term; one that is off is not run."""
        for prototypes in self._held:
            prototypes.is_frozen = context.step < prototypes.frozen_steps
        when = context.step, context.total_steps
        weights, running = self.weights(*when), self.weights.running(*when)
        return {
            name: replace(term(context), weight=weights[name]) if name in running else self._off(term, context.view)
            for name, term in self.items()
        }

    def _off(self, term: Term, view: ForwardView) -> TermLoss:
        """Nothing, with every weight that the term may train in its graph.

        Data parallel training waits for the gradient of each of them, and would wait for ever.
        """
        nothing = torch.zeros((), device=view.segments.device)
        parts = [weight.flatten()[:0].sum() for part in (term, self.heads) for weight in part.parameters()]
        return TermLoss(sum(parts, nothing), nothing, 0.0, is_off=True)

    def advance(self) -> None:
        """After an optimizer step: update running centres, and multipliers that are measured."""
        for _, term in self.items():
            if isinstance(term, PredictTerm) and term.assigner is not None:
                term.assigner.advance()  # type: ignore[operator]
        self.weights.rebalance()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any) -> None:
        check_names(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def check_names(names: Iterable[str], prefix: str) -> None:
    """Refuse weights of `Terms` that an older latentlm saved: its predictors and assigners were not in their terms."""
    old = next((name for name in names if name.startswith((f"{prefix}predictors.", f"{prefix}assigners."))), None)
    if old is not None:
        raise ConfigError(
            f"latent heads: '{old}' was saved by an older latentlm, whose heads had other names; train them again "
            "(the network itself loads with transformers)"
        )


def _borrows(spec: PlainTerm) -> bool:
    return isinstance(spec, Predict) and isinstance(spec.predictor, Shared | LinearOn)
