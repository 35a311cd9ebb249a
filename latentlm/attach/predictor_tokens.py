"""A hook behind the input embeddings: trained vectors stand where the batch has predictor tokens."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from latentlm.attach.state import LatentState


def predictor_token_hooks(state: LatentState) -> list[RemovableHandle]:
    """Register it; nothing to do where no term has predictor tokens."""
    if not hasattr(state.attachment.heads, "predictor_tokens"):
        return []
    embeddings = state.model.get_input_embeddings()
    embeddings.__dict__["_latent_state"] = state
    eager: Any = torch.compiler.disable
    return [embeddings.register_forward_hook(eager(_replace))]


def _replace(embeddings: Any, args: tuple, output: Tensor) -> Tensor | None:
    state: LatentState = embeddings._latent_state
    forward = state.collecting
    places = None if forward is None or forward.in_terms else (forward.inputs.latent or {}).get("predictor_tokens")
    if places is None:
        return None
    tokens: Tensor = state.attachment.heads.predictor_tokens  # type: ignore[assignment]
    found = tokens.to(output.dtype)[places.clamp(min=0)]
    return torch.where((places >= 0)[..., None], found, output)
