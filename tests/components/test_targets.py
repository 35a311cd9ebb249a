"""Targets: who receives gradient, and what the values are."""

import math
import random
import re
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT
from toy_view import DIM, VOCAB, context, report, terms, view

from latentlm.components.tap import Tap
from latentlm.components.targets import Ema, Frozen, Targets, TokenEmbeddings
from latentlm.components.token_embeddings import signed_permutations
from latentlm.config.schema import ConfigError
from latentlm.types import StepContext

SEGMENTS = [[0, 0, 0, 0], [0, 0, 0, -1]]
SETS = {"ids": [[[5, 6, 7]], [[8, 9, -1]]], "at": [[[3]], [[2]]]}
TABLE = {  # target -> who receives gradient beside source state, source head and predictor
    "{kind: online, tap: {depth: block 3, at: next}}": set(),
    "{kind: online, tap: {depth: block 3, at: next, head: there, norm: final}}": set(),
    "{kind: online, tap: {depth: block 3, at: next, pool: mean}, normalize: layer, stop_grad: false}": {"state"},
    "{kind: online, tap: {depth: block 3, at: next, norm: final}, stop_grad: false}": {"state", "norm"},
    "{kind: online, tap: {depth: block 3, at: next, head: there}, stop_grad: false}": {"state", "there"},
    "{kind: ema, tap: {depth: block 3, at: next}}": set(),
    "{kind: frozen, tap: {depth: block 3, at: next}, normalize: l2}": set(),
    "{kind: token_embeddings, ids: ids}": set(),
    "{kind: tokens}": {"norm"},  # the guess goes through the network's own norm
}
TERM = """
heads: {here: {kind: projector, dim: 8}, there: {kind: projector, dim: 8}}
terms: {a: {kind: predict, source: {depth: block 2, head: here%s}, target: %s, loss: %s, decode_with: %s}}
"""


def touched(parameters) -> bool:
    return any(p.grad is not None and bool((p.grad != 0).any()) for p in parameters)


@pytest.mark.parametrize("target", TABLE)
def test_gradient_table(target):
    data = "tokens" in target
    at = ", at: at" if "token_embeddings" in target else ""
    built = terms(TERM % (at, target, "next_token" if data else "mse", "norm_and_lm_head" if data else "none"))
    seen, teacher = view(SEGMENTS, SETS), view(SEGMENTS, SETS, seed=1)
    report(built, seen, ema=teacher, frozen=teacher)["a"].sum.backward()
    found = {
        "state": touched([seen.states[3]]),
        "norm": touched(seen.norm.parameters()),
        "there": touched(built.heads["there"].parameters()),
        "embed": touched(seen.embed.parameters()),
        "teacher": touched([*teacher.states.values(), *teacher.norm.parameters(), *teacher.embed.parameters()]),
    }
    assert {name for name, yes in found.items() if yes} == TABLE[target]
    assert touched([seen.states[2]])
    assert touched(built.heads["here"].parameters())
    assert touched(built["a"].predictor.parameters())
    assert not touched([seen.states[0], seen.states[1], seen.states[4]])


def test_logits_of_a_target_have_no_gradient():
    text = "{kind: online, tap: {depth: block 3, at: next}, stop_grad: false}"
    seen = view(SEGMENTS)
    report(terms(TERM % ("", text, "kl", "norm_and_lm_head")), seen)["a"].sum.backward()
    assert not touched([seen.states[3]])


@pytest.mark.parametrize(("kind", "seed"), [("online", 0), ("ema", 1), ("frozen", 2)])
@pytest.mark.parametrize("normalize", ["none", "layer", "l2"])
def test_latents_equal_the_states_they_name(kind, seed, normalize):
    built = terms(
        TERM % ("", f"{{kind: {kind}, tap: {{depth: block 3, at: next}}, normalize: {normalize}}}", "mse", "none")
    )
    views = {name: view(SEGMENTS, seed=number) for number, name in enumerate(["online", "ema", "frozen"])}
    seen = views["online"]
    _, goal = built["a"].pairs(context(built, seen, ema=views["ema"], frozen=views["frozen"]))
    naive = []
    for b, row in enumerate(SEGMENTS):
        for t in range(3):
            if row[t + 1] < 0:
                continue
            h = views[kind].states[3][b, t + 1].detach()
            if normalize == "layer":
                h = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt()
            naive.append(h / h.norm() if normalize == "l2" else h)
    torch.testing.assert_close(goal, torch.stack(naive))


def test_a_frozen_teacher_has_no_head():
    with pytest.raises(ValueError, match="would stay as it was drawn; drop 'head'"):
        Frozen(Tap(1, head="a"))


def test_momentum_is_a_share():
    with pytest.raises(ValueError, match=r"momentum and final_momentum must lie in 0\.\.1, got 1\.5"):
        Ema(Tap(1), momentum=1.5)


def code(ids, ordered=True, seed=0, **kwargs):
    target, seen = TokenEmbeddings("ids", seed, ordered), view([[0]] * len(ids), {"ids": ids}, **kwargs)
    keep = target.mask(seen).any(1)
    return target.read(StepContext(seen), keep).values[:, 0], seen.embed.weight.detach()


@given(st.integers(0, 99), st.booleans())
def test_token_code_equals_the_naive_loop(seed, ordered):
    draw = random.Random(seed)
    spans = [[draw.randrange(VOCAB) for _ in range(draw.randint(1, 4))] for _ in range(3)]
    values, embedding = code([[span + [-1] * (4 - len(span)) for span in spans]], ordered, seed)
    places, signs = signed_permutations(4, DIM, seed)
    for span, value in zip(spans, values, strict=True):
        total = [0.0] * DIM
        for j, token in enumerate(span):
            for d in range(DIM):
                e = float(embedding[token, int(places[j, d])]) * float(signs[j, d]) if ordered else 0.0
                total[d] += e if ordered else float(embedding[token, d])
        length = math.sqrt(sum(x * x for x in total))
        torch.testing.assert_close(value, torch.tensor([x / length for x in total], dtype=torch.float64))


@given(st.integers(0, 99), st.booleans())
def test_unpooled_every_token_of_a_span_has_a_code_of_its_own(seed, ordered):
    draw = random.Random(seed)
    spans = [[draw.randrange(VOCAB) for _ in range(draw.randint(0, 3))] for _ in range(4)]
    seen = view([[0]], {"ids": [[span + [-1] * (3 - len(span)) for span in spans]]})
    target = TokenEmbeddings("ids", seed, ordered, pool="none")
    there = target.mask(seen)
    assert there.tolist() == [[j < len(span) for j in range(3)] for span in spans]
    read = target.read(StepContext(seen), there.any(1))
    assert torch.equal(read.mask, there[there.any(1)])
    places, signs = signed_permutations(3, DIM, seed)
    for span, values in zip(filter(None, spans), read.values, strict=True):
        for j, token in enumerate(span):
            e = seen.embed.weight[token].detach()
            e = e[places[j]] * signs[j] if ordered else e
            torch.testing.assert_close(values[j], e / e.norm())


def test_a_source_guesses_every_token_of_its_span():
    built = terms(TERM % (", at: at", "{kind: token_embeddings, ids: ids, pool: none}", "cosine", "none"))
    index = {"at": [[[0], [2]]], "ids": [[[5, 6, 7], [8, -1, -1]]]}
    guess, goal = built["a"].pairs(context(built, seen := view([[0] * 4], index)))
    assert guess.shape == goal.shape == (4, DIM)
    assert torch.equal(guess[0], guess[1])
    assert not torch.equal(guess[2], guess[3])
    assert built.counts(seen)["a"] == 4


def test_maps_are_orthogonal_and_do_not_depend_on_how_many_there_are():
    places, signs = signed_permutations(6, DIM, 3)
    for j in range(6):
        matrix = torch.zeros(DIM, DIM)
        matrix[torch.arange(DIM), places[j]] = signs[j]
        assert torch.equal(matrix @ matrix.T, torch.eye(DIM))
    few = signed_permutations(2, DIM, 3)
    assert torch.equal(few[0], places[:2])
    assert torch.equal(few[1], signs[:2])
    assert not torch.equal(signed_permutations(6, DIM, 4)[0], places)
    assert len({tuple(p) for p in places.tolist()}) == 6


def test_order_matters_unless_the_code_is_a_bag_and_padding_and_company_never_do():
    (one, other), _ = code([[[5, 6], [6, 5]]])
    assert F.cosine_similarity(one, other, dim=0) < 0.9
    (one, other), _ = code([[[5, 6], [6, 5]]], ordered=False)
    torch.testing.assert_close(one, other)
    alone, _ = code([[[5, 6]]])
    company, _ = code([[[7, 8, 9, 9], [5, 6, -1, -1], [-1, -1, -1, -1]], [[3, -1, -1, -1]] * 3])
    assert torch.equal(alone[0], company[1])
    assert len(company) == 5  # the empty span is no anchor
    torch.testing.assert_close(company.norm(dim=-1), torch.ones(5, dtype=torch.float64))


def test_token_code_is_exact_in_every_precision():
    exact, _ = code([[[5, 6, 7]]])
    for dtype in (torch.float32, torch.bfloat16):
        rounded, _ = code([[[5, 6, 7]]], dtype=dtype)
        assert rounded.dtype == torch.float32
        assert (rounded.norm() - 1).abs() < 1e-6
    assert exact.dtype == torch.float64


def test_data_is_whatever_the_labels_say():
    labels = torch.tensor([[4, -100, 9, 2], [7, 1, -100, 3]])
    built = terms(TERM % ("", "{kind: tokens}", "next_token", "lm_head"))
    seen = view(SEGMENTS, labels=labels)
    _, goal = built["a"].pairs(context(built, seen))
    assert goal.tolist() == [4, 9, 2, 7, 1]  # the last label stands on padding
    seen.labels = None
    with pytest.raises(ValueError, match="the batch has no labels"):
        built.counts(seen)


def test_data_can_be_ids_that_stand_nowhere():
    built = terms(TERM % (", at: due", "{kind: tokens, ids: wanted}", "next_token", "lm_head"))
    sets = {"due": [[[0, 1], [2, -1]], [[2, 1], [-1, -1]]]}
    sets["wanted"] = [[[8, 9], [3, 5]], [[-1, 7], [2, 2]]]  # a place or an id that is missing is no pair
    seen = view(SEGMENTS, sets=sets)
    _, goal = built["a"].pairs(context(built, seen))
    assert goal.tolist() == [8, 9, 3, 7]
    with pytest.raises(ConfigError, match="ids takes their place; give one of them"):
        terms(TERM % ("", "{kind: tokens, ids: wanted, at: due}", "next_token", "lm_head"))
    with pytest.raises(ConfigError, match="distance_to: goes with targets at single positions"):
        terms(TERM % (", at: due", "{kind: tokens, ids: wanted}", "next_token", "lm_head, distance_to: due"))


@pytest.mark.parametrize("part", get_args(Targets))
def test_docstring_answers_the_questions(part):
    text = part.__doc__ or ""
    sections = ["Shapes", "Gradient", "Scale", "Ranks", "Source", "Checked"]
    assert [name for name in re.findall(r"^ +(\w+): {2,}\S", text, re.MULTILINE) if name in sections] == sections
    for path in re.findall(r"tests/\w+\.py", text):
        assert (ROOT / path).exists(), path
