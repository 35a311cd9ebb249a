"""The gradient that each term sends into the network, measured in the backward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from latentlm.objective.terms import Predict
from latentlm.objective.terms_module import Terms
from latentlm.types import StepContext, TermLoss


class GradientProbe:
    """Measures, during the next backward, each term's gradient at its source state against all the rest there.

        ratio = |w g_term| / |g_all - w g_term|,   cosine = cos(w g_term, g_all - w g_term)

    g_term is found ahead of the backward through the heads only; g_all arrives at the state in the backward, scaled by
    whatever the trainer does to the loss, and so is the scalar `loss` of the terms, which gives that factor.
    """

    def __init__(self):
        self.found: dict[str, float] = {}
        self.looked: int | None = None  # optimizer step of the last look
        self._factor: Tensor | None = None

    def watch(
        self, terms: Terms, context: StepContext, reports: dict[str, TermLoss], loss: Tensor, scales: dict[str, Tensor]
    ):
        """Hook the states that `reports` came from. `scales` turn a term's sum into its mean, as in `loss`."""
        if not loss.requires_grad:
            return

        def remember(grad: Tensor) -> None:
            self._factor = grad.detach()

        terms.weights.waiting = True
        loss.register_hook(remember)
        parts = []
        for name, report in reports.items():
            spec = terms[name].spec
            if report.is_off or spec.source.of != "network":
                continue  # of a term that is off no state is kept, and a teacher's state has no gradient
            trained_target = isinstance(spec, Predict) and spec.target.has_gradient
            depth = spec.source.blocks[-1]
            tapped = context.view.tapped
            state = tapped[depth] if depth in tapped else context.view.states[depth]
            if trained_target or not state.requires_grad or not report.sum.requires_grad:
                continue  # a target with gradient reaches the state through the network as well
            (grad,) = torch.autograd.grad(report.sum, state, retain_graph=True, allow_unused=True)
            if grad is not None:
                parts.append((state, self._reader(terms, name, grad.detach().float() * scales[name], report.weight)))
        for state, reader in parts:  # only now: a gradient found above would set off the hooks of the terms before it
            state.register_hook(reader)

    def _reader(self, terms: Terms, name: str, part: Tensor, weight: float | Tensor):
        def read(grad: Tensor) -> None:
            mine = part.flatten() * (1.0 if self._factor is None else self._factor)
            rest = grad.detach().flatten().float() - weight * mine
            own, other = float(mine.norm()), float(rest.norm())
            terms.weights.measured[name] = (
                own,
                other if other > 1e-6 * weight * own else 0.0,
            )  # below is the rounding of rest
            self.found[f"monitor/{name}/grad_ratio"] = float(weight) * own / max(other, 1e-20)
            self.found[f"monitor/{name}/grad_cosine"] = float(F.cosine_similarity(mine, rest, dim=0))

        return read
