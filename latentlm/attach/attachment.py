"""What is attached to a model: its heads, and which parts of which network they read. Fixed from then on."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from latentlm.backbones import Backbone
from latentlm.components.teacher import Teacher
from latentlm.objective.index_sets import units_read
from latentlm.objective.objective import Objective
from latentlm.objective.terms import PlainTerm, blocks_read, teachers
from latentlm.objective.terms_module import Terms
from latentlm.types import StepContext, TermLoss

EMBEDDING_STD = 0.02  # as most networks draw their input embeddings
Blocks = Mapping[str | None, frozenset[int]]


class LatentHeads(nn.Module):
    """Everything that training adds to a model: predictors, heads, teachers, and the number of steps made.

    It is the child ``latent`` of the model, so every engine sees, saves and shards it.

    Args:
        specs: plain, resolved terms.
        objective: with the shared heads.
        backbone: of the network.
        embedding: width of its input embeddings.
    """

    def __init__(self, specs: Mapping[str, PlainTerm], objective: Objective, backbone: Backbone, embedding: int):
        super().__init__()
        grid = backbone.grid
        for name in (*specs, *objective.heads):
            if name.endswith("latent"):
                raise ValueError(f"objective: '{name}' must not end in 'latent', PEFT would take it for all the heads")
        pixels = None if grid is None else grid.data_dim
        self.terms = Terms(specs, objective.heads, backbone.dim, embedding, pixels)
        self.teachers = nn.ModuleDict({kind: Teacher(config) for kind, config in teachers(specs).items()})
        if grid is not None and grid.mask_token is None:
            self.mask_token = nn.Parameter(torch.zeros(backbone.dim))
        count = max((each.predictor_tokens for each in units_read(specs.values())[1]), default=0)
        if count:
            self.predictor_tokens = nn.Parameter(torch.randn(count, embedding) * EMBEDDING_STD)
        self.step = 0

    def forward(self, context: StepContext) -> dict[str, TermLoss]:
        """Losses of all terms."""
        return self.terms(context)

    def advance(self) -> None:
        """Count an optimizer step; running centres and weights set by a gradient ratio move."""
        self.step += 1
        self.terms.advance()

    def get_extra_state(self) -> Tensor:
        """The step as a tensor, which is all that safetensors holds; reading a buffer would wait for the device."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from the step of a checkpoint."""
        self.step = int(state)


@dataclass(frozen=True)
class Attachment:
    """One model with heads.

    Attributes:
        model: the causal LM or ViT; heads, PEFT and TRL give it attributes that its class does not have.
        backbone: its parts.
        objective: what is trained.
        specs: the plain, resolved terms.
        blocks: depths that the terms read, of the network itself (None) and of each teacher.
        norm: name of the final norm in the decoder; None where there is none.
        can_cache: whether a forward can be told to keep no cache.
        pad_token_id: of the network, where it says one.
        handles: of all hooks.
    """

    model: Any
    backbone: Backbone
    objective: Objective
    specs: Mapping[str, PlainTerm]
    blocks: Blocks
    norm: str | None
    can_cache: bool
    pad_token_id: int | None = None
    handles: list[RemovableHandle] = field(default_factory=list)
    _of_terms: dict[frozenset[str], Blocks] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, model: nn.Module, backbone: Backbone, objective: Objective, specs: Mapping[str, PlainTerm]
    ) -> "Attachment":
        """Of a model with these plain, resolved terms."""
        parts = backbone.decoder.named_modules()
        return cls(
            model=model,
            backbone=backbone,
            objective=objective,
            specs=specs,
            blocks={kind: blocks_read(specs, kind) for kind in (None, *teachers(specs))},
            norm=next((name for name, part in parts if part is backbone.norm), None),
            can_cache="use_cache" in inspect.signature(model.forward).parameters,
            pad_token_id=pad if isinstance(pad := getattr(model.config, "pad_token_id", None), int) else None,
        )

    @property
    def heads(self) -> LatentHeads:
        """The heads, inside the wrapper that PEFT may have put around them to train a copy."""
        latent = self.model.latent
        if isinstance(latent, LatentHeads):
            return latent
        if latent.disable_adapters or not latent.active_adapters:
            return latent.original_module
        return latent.modules_to_save[latent.active_adapters[0]]

    def blocks_of(self, terms: frozenset[str]) -> Blocks:
        """`blocks` of these terms alone; the same object each time, which compiled graphs hold on to."""
        if terms not in self._of_terms:
            specs = {name: spec for name, spec in self.specs.items() if name in terms}
            self._of_terms[terms] = {kind: blocks_read(specs, kind) for kind in self.blocks}
        return self._of_terms[terms]

    def decoder_weight(self, name: str) -> Tensor:
        """A weight of the decoder by its dotted name."""
        return self.backbone.decoder.get_parameter(name)
