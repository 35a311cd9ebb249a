"""A `Regularize` term as a module: from the latents of a tap to the value of a set loss."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentlm.components.tap import Widths
from latentlm.objective.terms import Regularize
from latentlm.types import ForwardView, StepContext, TermLoss


class RegularizeTerm(nn.Module):
    """A term that shapes the distribution of one set of latents; it has no weights.

    Args:
        name: of the term, for errors.
        spec: what is shaped; its depths are resolved.
        widths: of the network.
    """

    def __init__(self, name: str, spec: Regularize, widths: Widths):
        super().__init__()
        self.name, self.spec = name, spec
        if spec.source.head is not None and spec.source.head not in widths.heads:
            have = ", ".join(widths.heads) or "none"
            raise ValueError(f"terms.{name}: no head '{spec.source.head}' in the objective (heads: {have})")

    def gather(self, context: StepContext) -> Float[Tensor, "*g m d"]:
        """The samples."""
        spec, context = self.spec, context.for_term(self.name)
        mask = spec.mask(context.view)
        keep = mask.any(1)
        # the pieces of VICReg shape the same latents: the head runs once for all of them
        values = context.cached(
            (spec.source, spec.sample_axis),
            lambda: spec.source.read(context.view_of(spec.source.of), keep, context.heads),
        ).values
        return values[mask[keep]] if spec.sample_axis == "positions" else values.transpose(0, 1)

    def count(self, view: ForwardView) -> Tensor:
        """1 if there are samples, else 0: the loss of a set is one number."""
        return self.spec.mask(view.for_term(self.name)).sum().clamp(max=1)

    def forward(self, context: StepContext) -> TermLoss:
        """The value of the set."""
        samples = self.gather(context)
        count = torch.tensor(float(samples.shape[-2] > 0), device=samples.device)
        # a rank without samples still takes part in the statistic of all, but does not count it a second time
        return TermLoss(self.spec.loss(samples, context.step) * count, count)
