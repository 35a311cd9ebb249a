"""What is measured of a model in training, and when: at the first forward of every N optimizer steps."""

from torch import Tensor

from latentlm.attach.attachment import Attachment
from latentlm.attach.forward_io import Forward
from latentlm.attach.optimizer_steps import StepTracker
from latentlm.attach.teacher_forward import teacher_health
from latentlm.distributed.fsdp import is_sharded
from latentlm.monitor.gradients import GradientProbe
from latentlm.monitor.running_means import Metrics
from latentlm.monitor.statistics import measure
from latentlm.objective.objective import means
from latentlm.types import StepContext, TermLoss


class Monitoring:
    """Running means for the logs, and the collapse statistics of every N steps."""

    def __init__(self):
        self.probe, self.metrics = GradientProbe(), Metrics()

    def look(
        self,
        attachment: Attachment,
        forward: Forward,
        steps: StepTracker,
        context: StepContext,
        losses: dict[str, TermLoss],
        share: Tensor | float,
    ) -> None:
        """Measure the terms of this forward and have their gradients measured in the backward, where it is time to."""
        latent, every = attachment.heads, attachment.objective.monitor_every
        if not every or latent.step % every or self.probe.looked == latent.step or forward.loss is None:
            return
        self.probe.looked = latent.step
        slow = teacher_health(attachment, steps.total) if forward.blocks.get("ema") else {}
        self.metrics.latest = measure(latent.terms, context) | slow
        # else what the blocks above send back never shows, or FSDP takes the first gradient for the end of the backward
        if not (forward.compiled or is_sharded(attachment.model)):
            self.probe.watch(latent.terms, context, losses, forward.loss, means(losses, share, steps.counts))
        elif latent.terms.weights.ratios:
            raise ValueError("weight.grad_ratio: cannot be measured in a compiled or sharded model; give a number")
