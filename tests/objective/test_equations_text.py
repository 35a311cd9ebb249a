"""Published objectives, written as YAML, equal their equations on the hidden states that transformers returns."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny_models import ids
from toy_view import llama, objective, packed, states
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from latentlm.attach.state import latent_state
from latentlm.config.catalog import read_recipe, recipe_names

NITP = """
terms:
  next_implicit:
    kind: predict
    source: {depth: 1, norm: final, at: now}
    target: {kind: online, tap: {depth: 1/5, norm: none, at: %s}, stop_grad: true}
    predictor: {kind: swiglu, hidden: 4x}
    loss: {kind: cosine}
    weight: 0.8
"""
NEXTLAT = """
terms:
  dynamics:
    kind: predict
    source: {depth: 1, norm: final}
    target: {kind: online, tap: {depth: 1, norm: final, at: {kind: next, horizon: %d}}}
    predictor: {kind: dynamics, hidden: 2x}
    loss: {kind: smooth_l1}
    weight: 2.0
  belief:
    kind: predict
    source: {depth: 1, norm: final}
    target: {kind: online, tap: {depth: 1, norm: final, at: {kind: next, horizon: %d}}}
    predictor: {kind: shared, term: dynamics}
    decode_with: lm_head
    loss: {kind: kl}
    weight: 0.5
"""
TWO_VIEWS = """
terms:
  views:
    kind: predict
    source: {depth: 1, norm: final, at: a_end}
    target: {kind: online, tap: {depth: 1, norm: final, at: b_end}, stop_grad: false}
    predictor: identity
    loss: cosine
    weight: 1.5
"""
BATCH = {"input_ids": ids(3, 9), "labels": ids(3, 9)}


def check(model, batch, equation, skip=()):
    """Latent loss and its gradient against an equation on `hidden_states`; the gradients are returned by name."""
    named = {n: p for n, p in model.named_parameters()}
    ours = torch.autograd.grad(model(**batch).latent_loss, named.values(), allow_unused=True)
    value = equation(states(model, **batch))
    theirs = torch.autograd.grad(value, named.values(), allow_unused=True)
    # the norm of a Llama computes in float32 whatever its weights
    torch.testing.assert_close(model(**batch).latent_loss, value, rtol=1e-6, atol=0)
    for name, one, other in zip(named, ours, theirs, strict=True):
        if other is None and one is not None:
            assert (one == 0).all(), name
        elif other is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
    return dict(zip(named, ours, strict=True))


def smooth_l1(e):
    return torch.where(e.abs() < 1, e.square() / 2, e.abs() - 0.5).mean(-1)


@pytest.mark.parametrize(("at", "offset"), [("next", 1), ("now", 0)])
def test_nitp_and_its_same_position_control(at, offset):
    model = llama(NITP % at, torch.float64)
    net = model.latent.terms["next_implicit"].predictor.network

    def equation(h):
        z = h[1].detach()[:, offset:]  # 1/5 of four blocks is the first
        x = h[-1][:, : z.shape[1]]
        p = (F.silu(x @ net.gate.weight.T) * (x @ net.up.weight.T)) @ net.down.weight.T
        return 0.8 * (1 - (p * z).sum(-1) / p.norm(dim=-1) / z.norm(dim=-1)).mean()

    check(model, BATCH, equation)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_nextlat(steps, tied):
    model = llama(NEXTLAT % (steps, steps), torch.float64, tie_word_embeddings=tied)
    net = model.latent.terms["dynamics"].predictor.network
    tokens = BATCH["input_ids"]
    head = model.lm_head.weight.detach().clone()

    def equation(h):
        top, errors, kls = h[-1], [], []
        e = model.get_input_embeddings()(tokens)
        for t in range(9):
            guess = top[:, t]
            for i in range(1, steps + 1):
                if t + i >= 9:
                    break
                guess = guess + net(torch.cat([guess, e[:, t + i]], -1))
                goal = top[:, t + i].detach()
                errors.append(smooth_l1(guess - goal))
                p, q = (goal @ head.T).log_softmax(-1), (guess @ head.T).log_softmax(-1)
                kls.append((p.exp() * (p - q)).sum(-1))
        return 2.0 * torch.cat(errors).mean() + 0.5 * torch.cat(kls).mean()

    grads = check(model, BATCH, equation)
    if not tied:
        assert grads["lm_head.weight"] is None  # the output head is frozen for these terms


def test_llm_jepa():
    model = llama(TWO_VIEWS, torch.float64)
    batch = packed([3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14], [15, 16])
    batch["latent"] |= {"a_end": torch.tensor([[[4], [11], [-1]]]), "b_end": torch.tensor([[[7], [13], [7]]])}

    def equation(h):
        a, b = h[-1][0, [4, 11]], h[-1][0, [7, 13]]
        return 1.5 * (1 - F.cosine_similarity(a, b, dim=-1)).mean()

    check(model, batch, equation)


@pytest.mark.filterwarnings("ignore:a second backward")  # `check` calls the model twice
def test_reversal_carried(monkeypatch):
    rms_norm = lambda self, x: F.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)  # noqa: E731
    monkeypatch.setattr(LlamaRMSNorm, "forward", rms_norm)  # its own computes in float32 whatever its weights
    model = llama(yaml.safe_dump(read_recipe("reversal_pretrained")["objective"]), torch.float64)
    batch = packed([3, 4, 5, 6, 7], [8, 9, 10], [11, 12, 13, 14], [15, 16])
    batch["latent"] |= {
        "source_last": torch.tensor([[[1], [6], [10], [13]]]),
        "before_target": torch.tensor([[[2], [-1], [10], [-1]]]),
        "target_positions": torch.tensor([[[2, 3], [6, -1], [10, -1], [12, 13]]]),
        "target_ids": torch.tensor([[[6, 7], [4, -1], [12, -1], [9, 6]]]),
    }

    network, table = (
        model.latent.terms["predict_target_from_source"].predictor.network,
        model.get_input_embeddings().weight.detach(),
    )
    head = model.lm_head.weight.detach()

    def slot(h, j):
        own = slice(j * len(h), (j + 1) * len(h))
        return network.weight[own] @ h + network.bias[own]

    def info_nce(h, places, spans, guess):
        """Every token of every span against all of them; a token that comes twice is no negative of itself."""
        tokens, values = [token for span in spans for token in span], []
        for places_of_it, span in zip(places, spans, strict=True):
            own = []
            for j, (place, token) in enumerate(zip(places_of_it, span, strict=True)):
                others = [token, *(other for other in tokens if other != token)]
                cosines = [F.cosine_similarity(guess(h[0, place], j), table[other], dim=0) for other in others]
                own.append((torch.stack(cosines) / 0.1).logsumexp(0) - cosines[0] / 0.1)
            values.append(torch.stack(own).mean())
        return torch.stack(values).mean()

    def equation(h):
        spans = [[6, 7], [4], [12], [9, 6]]
        named = info_nce(h[2], [[1, 1], [6], [10], [13, 13]], spans, slot)
        carried = info_nce(h[3], [[2, 2], [10]], [[6, 7], [12]], slot)
        said = [h[-1][0, places] @ head.T for places in ([2, 3], [6], [10], [12, 13])]  # of the last norm
        each = [F.cross_entropy(logits, torch.tensor(span)) for logits, span in zip(said, spans, strict=True)]
        spelled = torch.stack(each).mean()
        return 2 * (named + carried + spelled)

    check(model, batch, equation)


def test_the_shuffle_control_gives_everyone_a_strangers_target():
    model = llama(NITP % "next, pool: none" + "    shuffle: true\n", torch.float64)
    predictor = model.latent.terms["next_implicit"].predictor

    def equation(h):
        x, z = h[-1][:, :-1].flatten(0, 1), h[1].detach()[:, 1:].flatten(0, 1)
        far = torch.cat([z[-12:], z[:-12]])  # half of 24 pairs away
        return 0.8 * (1 - F.cosine_similarity(predictor(x[None])[0], far, dim=-1)).mean()

    check(model, BATCH, equation)


def test_a_shuffled_pair_is_never_its_own_nor_its_neighbour():
    text = NITP % "next" + "    shuffle: true\n"
    model, found = llama(text), []
    model.latent.register_forward_pre_hook(lambda module, args: found.append(args[0]))
    model(**BATCH)
    terms = latent_state(model).model.latent.terms
    _, goal = terms["next_implicit"].pairs(found[0])
    state = found[0].view.states[1]
    for row, (b, t) in enumerate((b, t) for b in range(3) for t in range(8)):
        for near in (t, t + 1):
            assert not torch.equal(goal[row], state[b, near])


def test_recipes_of_the_paper_say_the_same_thing():
    for name, text in (("nitp", NITP % "next"), ("nextlat", NEXTLAT % (1, 1))):
        if name not in recipe_names():
            continue
        from latentlm.attach.api import as_objective

        recipe, ours = as_objective(name), objective(text)
        assert list(recipe.terms) == list(ours.terms)
        for term, own in zip(recipe.terms.values(), ours.terms.values(), strict=True):
            for field in ("source", "target", "predictor", "loss", "decode_with", "shuffle"):
                assert getattr(term, field) == getattr(own, field)
