"""What papers do beside the learning rate at every optimizer step: a weight decay that moves, a clip of each weight."""

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class WeightDecaySchedule(TrainerCallback):
    """Weight decay along half a cosine, of the groups that have some.

        wd_t = final + (first - final) (1 + cos(pi t / T)) / 2

    Source:    Caron et al. 2021 (DINO), arXiv:2104.14294, appendix: 0.04 to 0.4.

    Args:
        final: at the last step; the first is that of the arguments.
    """

    def __init__(self, final: float):
        self._final = final

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set that of this step."""
        share = state.global_step / max(1, state.max_steps)
        decay = self._final + (args.weight_decay - self._final) * (1 + math.cos(math.pi * share)) / 2
        for group in kwargs["optimizer"].param_groups:
            if group["weight_decay"] > 0:
                group["weight_decay"] = decay


class ClipEachWeight(TrainerCallback):
    """No weight's gradient is longer than a limit, each by itself.

    Source:    the official code of DINO (clip_grad 3.0).

    Args:
        limit: of the length.
    """

    def __init__(self, limit: float):
        self._limit = limit

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip; gradients have been unscaled by now."""
        for weight in kwargs["model"].parameters():
            if weight.grad is not None:
                torch.nn.utils.clip_grad_norm_([weight], self._limit)
