"""Small things with known structure: a view made by hand, and a tiny Llama with an objective given as YAML."""

import torch
import yaml
from tiny_models import VOCAB, build
from torch import Tensor, nn

from latentlm.attach.api import get_latent_model
from latentlm.config.schema import parse
from latentlm.objective.objective import Objective
from latentlm.objective.terms_module import Terms
from latentlm.types import ForwardView, StepContext

DIM, LAYERS = 8, 4


def objective(text: str) -> Objective:
    return parse(Objective, yaml.safe_load(text), "objective")


def view(segments, sets=None, seed=0, dtype=torch.float64, labels=None, inputs=None) -> ForwardView:
    """States that are leaves with gradient at every depth, beside an embedding, a norm and a fixed output matrix."""
    torch.manual_seed(seed)
    segments = torch.as_tensor(segments)
    shape = segments.shape
    embed, norm = nn.Embedding(VOCAB, DIM, dtype=dtype), nn.LayerNorm(DIM, dtype=dtype)
    nn.init.normal_(norm.weight, 1, 0.1)
    head = torch.randn(VOCAB, DIM, dtype=dtype)
    states = {k: torch.randn(*shape, DIM, dtype=dtype, requires_grad=True) for k in range(LAYERS + 1)}
    inputs = torch.randint(0, VOCAB, shape) if inputs is None else inputs
    if labels is None:
        labels = torch.where(segments >= 0, torch.randint(0, VOCAB, shape), -100)
    sets = {name: torch.as_tensor(value) for name, value in (sets or {}).items()}
    return ForwardView(states, segments, sets, inputs, labels, embed, norm, lambda z: z @ head.T)


def terms(text: str, dtype=torch.float64, seed=0) -> Terms:
    """Terms of an objective for a `view`."""
    torch.manual_seed(seed)
    parsed = objective(text)
    return Terms(parsed.resolve(LAYERS), parsed.heads, DIM, DIM).to(dtype)


def report(built: Terms, seen: ForwardView, step: int = 0, **teachers: ForwardView):
    return built(context(built, seen, step, **teachers))


def context(built: Terms, seen: ForwardView, step: int = 0, **teachers: ForwardView) -> StepContext:
    """Everything that terms read, of a view made by hand."""
    return StepContext(seen, teachers, built.calls(), {}, step)


def llama(text: str, dtype=torch.float32, seed=0, **overrides) -> nn.Module:
    """A tiny Llama (4 blocks, width 32) in training mode with the terms of an objective."""
    model = build("llama", seed, **overrides)
    return get_latent_model(model, objective(text)).to(dtype).train()


def packed(*documents: list[int], pad: int = 0) -> dict:
    """One packed row, with its segments, as a collator would give it."""
    ids = [i for document in documents for i in document] + [0] * pad
    positions = [p for document in documents for p in range(len(document))] + list(range(pad))
    labels = [i for document in documents for i in (-100, *document[1:])] + [-100] * pad
    segments = [s for s, document in enumerate(documents) for _ in document] + [-1] * pad
    row = {"input_ids": ids, "position_ids": positions, "labels": labels}
    return {k: torch.tensor([v]) for k, v in row.items()} | {"latent": {"segments": torch.tensor([segments])}}


def states(model: nn.Module, **batch) -> tuple[Tensor, ...]:
    """Depth 0..4 of a Llama, the last one after its final norm, as transformers itself tells them."""
    keep = {k: v for k, v in batch.items() if k in ("input_ids", "position_ids", "attention_mask")}
    training = model.training
    out = model.eval()(**keep, output_hidden_states=True, use_cache=False).hidden_states
    model.train(training)
    return out
