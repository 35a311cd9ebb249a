"""When the monitor looks: at the first forward of every so many optimizer steps."""

from typing import Any

from torch import Tensor

from latentlm.attach.teacher_forward import teacher_health
from latentlm.distributed.fsdp import is_sharded
from latentlm.monitor.statistics import measure
from latentlm.objective.objective import means
from latentlm.types import StepContext, TermLoss


def look(run: Any, context: StepContext, reports: dict[str, TermLoss], share: Tensor | float) -> None:
    """Measure the terms of this forward and have their gradients measured in the backward, where it is time to."""
    latent, every = run.model.latent, run.objective.monitor_every
    if not every or latent.step % every or run.probe.looked == latent.step:
        return
    run.probe.looked = latent.step
    run.metrics.latest = measure(latent.terms, context) | teacher_health(run)
    # else what the blocks above send back never shows, or FSDP takes the first gradient for the end of the backward
    if not (run.compiled or is_sharded(run.model)):
        run.probe.watch(latent.terms, context, reports, run.loss, means(reports, share, run.counts))
    elif latent.terms.ratios:
        raise ValueError("weight.grad_ratio: cannot be measured in a compiled or sharded model; give a number")
