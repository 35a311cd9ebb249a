"""A frozen random code: states of a network drawn with a seed, whatever is trained, and the same after a restart."""

import copy

import pytest
import torch
import torch.nn.functional as F
from attached_models import lora
from tiny_models import ids
from tiny_vits import attach as vit
from tiny_vits import images
from toy_view import llama, objective, states

import latentlm
from latentlm.attach.state import latent_state
from latentlm.components.targets import Random
from latentlm.components.token_embeddings import TokenEmbeddings

TERM = """
terms:
  code:
    kind: predict
    source: {depth: 1/4}
    target: {kind: %s, tap: {depth: 1/2, at: next}%s}
    loss: smooth_l1
"""
BATCH = {"input_ids": ids(2, 8), "labels": ids(2, 8)}


def read(model, batch=BATCH):
    """What the terms are given in one forward."""
    seen = []
    handle = latent_state(model).attachment.heads.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(**batch)
    handle.remove()
    return seen[0]


def drawn(model, seed):
    """A fresh network like the model's, drawn with a seed."""
    decoder = latent_state(model).backbone.decoder
    torch.manual_seed(seed)
    return type(decoder)(copy.deepcopy(decoder.config)).eval()


def step(model):
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(**BATCH).loss.backward()
    optimizer.step()


# peft 0.21 reads a name that transformers 5.23 deprecates
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("seed", [0, 3])
def test_states_are_those_of_a_freshly_drawn_network(seed, adapters):
    model = llama(TERM % ("random", f", seed: {seed}"))
    model = lora(model) if adapters else model
    before = torch.get_rng_state()
    step(model)
    assert torch.equal(torch.get_rng_state(), before)
    found = read(model).teacher_views["random"].states
    assert set(found) == {2}  # stopped at the deepest target
    assert not found[2].requires_grad
    expected = drawn(model, seed)(input_ids=BATCH["input_ids"], output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(found[2], expected, rtol=0, atol=1e-6)
    held = {name for name, _ in latent_state(model).attachment.heads.teachers.named_buffers()}
    assert len(held) > 10
    assert not [name for name in held if "LORA" in name]


def test_it_is_saved_and_goes_on_as_it_was(tmp_path):
    model = llama(TERM % ("random", ""))
    step(model)
    model.save_pretrained(tmp_path)
    again = latentlm.from_pretrained(tmp_path).train()
    kept = dict(again.latent.teachers["random"].named_buffers())
    assert kept.keys() == dict(model.latent.teachers["random"].named_buffers()).keys()
    one, other = read(model), read(again)
    assert torch.equal(one.teacher_views["random"].states[2], other.teacher_views["random"].states[2])
    with torch.no_grad():  # the copies decide, not the seed
        next(iter(kept.values())).zero_()
    assert not torch.equal(read(again).teacher_views["random"].states[2], one.teacher_views["random"].states[2])


@pytest.mark.parametrize(
    ("kind", "more"), [("online", ", stop_grad: false"), ("ema", ", momentum: 0.9"), ("frozen", ", refresh_every: 4")]
)
def test_one_word_puts_it_in_the_place_of_any_teacher(kind, more):
    text = (TERM % (kind, more)).replace("loss:", "teacher: random\n    loss:")
    (term,) = objective(text).resolve(4).values()
    normalize = "none" if kind == "online" else "layer"
    assert term.target == Random(term.target.tap, normalize)
    model, plain = llama(text), llama(TERM % ("random", f", normalize: {normalize}"))
    assert set(model.latent.teachers) == {"random"}
    for one, other in zip(model.latent.parameters(), plain.latent.parameters(), strict=True):
        assert torch.equal(one, other)
    assert model(**BATCH).latent_loss == plain(**BATCH).latent_loss


def test_the_cells_of_a_ladder_but_not_the_data():
    text = "kind: levels, sources: [1/2], targets: [data, 1/2, 1], target: {teacher: ema}"
    cells = objective(f"terms: {{a: {{{text}, teacher: random, shuffle: true}}}}").resolve(4)
    assert [type(cell.target).__name__ for cell in cells.values()] == ["Tokens", "Random", "Random"]
    assert [cell.shuffle for cell in cells.values()] == [False, True, True]


def test_input_embeddings_of_a_random_network():
    sets = {"words": torch.tensor([[[3, 4, -1]], [[5, 6, 7]]]), "ends": torch.full((2, 1, 1), 4)}
    batch = BATCH | {"latent": {"segments": torch.zeros(2, 8, dtype=torch.long), **sets}}
    text = """
    terms:
      code:
        kind: predict
        source: {depth: 1/4, at: ends}
        target: {kind: token_embeddings, ids: words, ordered: false}
        loss: cosine
        teacher: random
    """
    model = llama(text)
    blocks = []
    latent_state(model).backbone.layers[0].register_forward_hook(lambda *_: blocks.append(1))
    seen = read(model, batch)
    assert len(blocks) == 1  # its embeddings alone are read, so none of its blocks is run
    target = model.latent.terms["code"].spec.target
    assert target == TokenEmbeddings("words", ordered=False, of="random")
    found = target.read(seen, torch.tensor([True, True])).values[:, 0]
    table = drawn(model, 0).get_input_embeddings().weight
    expected = torch.stack([table[[3, 4]].sum(0), table[[5, 6, 7]].sum(0)])
    torch.testing.assert_close(found, F.normalize(expected, dim=-1))
    assert not found.requires_grad


def test_a_vit_and_a_head_are_drawn_as_well():
    text = """
    heads: {code: {kind: prototypes, dim: 8, hidden: 16, bottleneck: 4}}
    terms:
      crops:
        kind: predict
        source: {depth: 1, norm: final, at: cls_1, head: code}
        target:
          kind: ema
          tap: {depth: 1, norm: final, at: cls_2, head: code}
          normalize: none
          assign: {kind: center}
        predictor: {kind: identity}
        loss: soft_cross_entropy
        teacher: random
    """
    model = vit(text)
    seen = read(model, images(views=2))
    assert torch.isfinite(model(**images(views=2)).loss)
    fresh = drawn(model, 0)(pixel_values=images(views=2)["pixel_values"], output_hidden_states=True)
    torch.testing.assert_close(
        seen.teacher_views["random"].states[4].flatten(0, 1)[:17], fresh.hidden_states[4].flatten(0, 1)[:17]
    )
    own, theirs = seen.heads["code"], seen.teacher_heads["random"]["code"]
    values = torch.randn(3, 1, 32)
    assert not torch.allclose(own(values), theirs(values))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_another_checkpoint_is_read_under_adapters_too(tmp_path):
    other = llama("{}", seed=5)
    latentlm.remove_latent(other).save_pretrained(tmp_path)
    model = lora(llama(TERM % ("frozen", f", checkpoint: {tmp_path}")))
    found = read(model).teacher_views["frozen"].states[2]
    torch.testing.assert_close(found, states(other, **BATCH)[2])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a target tokens has none; leave it out"):
        objective(
            "terms: {a: {kind: predict, source: {depth: 1}, target: {kind: tokens}, loss: next_token, "
            "decode_with: lm_head, teacher: random}}"
        )
    two = TERM % ("random", "") + (TERM % ("random", ", seed: 1")).partition("terms:")[2].replace("code:", "other:")
    with pytest.raises(ValueError, match="one network has one random teacher; give all such targets the same seed"):
        objective(two).resolve(4)
