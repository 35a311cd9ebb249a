"""The ways to train that a recipe can name; `trainers.py` runs them."""

from dataclasses import dataclass
from typing import Any


def at_least(low: int, **values: Any) -> None:
    """Refuse values below `low`, and infinite ones."""
    for key, value in values.items():
        if value is not None and not low <= value < float("inf"):
            raise ValueError(f"{key}: {value}; set it to {low} or more")


@dataclass(frozen=True)
class Supervised:
    """The data as they are: next-token loss on documents, terms alone on images."""


@dataclass(frozen=True)
class Grpo:
    """Completions that the network samples, rewarded with 1 where the data's own check finds them right.

        L_GRPO = -sum_i A_i log p(completion_i) / tokens,  A_i = (reward_i - mean of its prompt) / spread of its prompt

    TRL's `GRPOTrainer` with its token-wise mean (DAPO); `batch` counts completions.

    Source:    arXiv 2402.03300; the mean of arXiv 2503.14476.
    Checked:   tests/experiment/test_grpo_recipe.py - right answers become more likely;
               tests/trainers/test_preference_trainers.py - the terms.

    Args:
        group: completions of a prompt, which are compared with each other.
        temperature: of sampling.
        max_completion: tokens of a completion.
        beta: weight of the KL divergence from the network that training starts from.
    """

    group: int = 8
    temperature: float = 1.0
    max_completion: int = 8
    beta: float = 0.0

    def __post_init__(self):
        at_least(2, group=self.group)
        at_least(1, max_completion=self.max_completion)
        at_least(0, beta=self.beta)
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: {self.temperature}; set it above 0")
