"""Predictors against their equations, and who shares weights with whom."""

import pytest
import torch
import torch.nn.functional as F
from toy_view import DIM, context, objective, report, terms, view

from latentlm.components.heads import Projector, dense, width
from latentlm.components.predictors import Dynamics, Identity, Linear, Mlp, PerTokenLinear, Swiglu
from latentlm.objective.terms_module import Terms


def made(part, dim_in=DIM, dim_out=DIM, dim_condition=6):
    torch.manual_seed(0)
    return part.build(dim_in, dim_out, dim_condition).double()


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def layer_norm(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def linear(x, layer):
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


@pytest.mark.parametrize("steps", [1, 3])
def test_dynamics_is_the_recursion_of_the_paper(steps):
    cell = made(Dynamics("2x"))
    h, e = draw(5, 1, DIM), draw(5, steps, 6)
    norm, first, _, second, _, third = cell.network
    assert [layer.weight.shape for layer in (first, second, third)] == [(16, 14), (16, 16), (8, 16)]
    state, want = h[:, 0], []
    for i in range(steps):
        x = layer_norm(torch.cat([state, e[:, i]], -1), norm)
        state = state + linear(F.gelu(linear(F.gelu(linear(x, first)), second)), third)
        want.append(state)
    torch.testing.assert_close(cell(h, e), torch.stack(want, 1))


def test_swiglu_is_its_equation():
    layer = made(Swiglu("3x"), DIM, 5)
    h = draw(4, 2, DIM)
    gate, up, down = layer.network.gate.weight, layer.network.up.weight, layer.network.down.weight
    assert gate.shape == up.shape == (24, DIM)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 24 * DIM + 24 * 5
    g = h @ gate.T
    torch.testing.assert_close(layer(h), (g * g.sigmoid() * (h @ up.T)) @ down.T)


@pytest.mark.parametrize("residual", [False, True])
def test_mlp_is_its_equation(residual):
    layer = made(Mlp(hidden=12, num_layers=3, residual=residual))
    h = draw(4, 2, DIM)
    norm, first, _, second, _, third = layer.network.network if residual else layer.network
    want = linear(F.gelu(linear(F.gelu(linear(layer_norm(h, norm), first)), second)), third)
    torch.testing.assert_close(layer(h), want + h if residual else want)


def test_linear_and_identity():
    h = draw(4, 2, DIM)
    layer = made(Linear(), DIM, 3)
    torch.testing.assert_close(layer(h), linear(h, layer.network))
    assert made(Linear(bias=False)).network.bias is None
    assert made(Identity())(h) is h


def test_slots_are_a_matrix_for_each_place():
    h, layer = draw(4, 1, DIM), made(PerTokenLinear(3), DIM, 5)
    guess = layer(h)
    assert guess.shape == (4, 3, 5)
    for place in range(3):
        rows = slice(5 * place, 5 * (place + 1))
        want = h[:, 0] @ layer.network.weight[rows].T + layer.network.bias[rows]
        torch.testing.assert_close(guess[:, place], want)
    with pytest.raises(ValueError, match="per_token_linear: num must be at least 1, got 0"):
        PerTokenLinear(0)


CODE = "{kind: token_embeddings, ids: ids, pool: none, ordered: false}"


@pytest.mark.parametrize("num", [2, 3, 5])
def test_what_lies_beyond_the_slots_is_not_asked_for(num):
    text = "terms: {a: {kind: predict, source: {depth: block 2, at: at}, target: %s, predictor: %s, loss: cosine}}"
    built = terms(text % (CODE, f"{{kind: per_token_linear, num: {num}}}"))
    seen = view([[0] * 4], {"at": [[[0], [2]]], "ids": [[[5, 6, 7], [8, -1, -1]]]})
    guess, goal = built["a"].pairs(context(built, seen))
    places = [(0, j, token) for j, token in enumerate((5, 6, 7)) if j < num] + [(2, 0, 8)]
    assert built.counts(seen)["a"] == len(places)
    layer = built["a"].predictor
    for row, (position, slot, token) in enumerate(places):
        torch.testing.assert_close(guess[row], layer(seen.states[2][:, position, None])[0, slot])
        torch.testing.assert_close(goal[row], F.normalize(seen.embed.weight[token].detach(), dim=0))


def test_slots_beside_another_predictor_at_the_same_places_and_their_mistakes():
    one = "{kind: predict, source: {depth: block 2, at: %s}, target: " + CODE + ", predictor: %s, loss: cosine}"
    sets = {"at": [[[0], [2]]], "many": [[[0, 1], [2, 3]]], "ids": [[[5, 6], [8, -1]]]}
    both = terms(f"terms: {{a: {one % ('at', '{kind: per_token_linear, num: 1}')}, b: {one % ('at', 'linear')}}}")
    assert {name: int(count) for name, count in both.counts(view([[0] * 4], sets)).items()} == {"a": 2, "b": 3}
    report(both, view([[0] * 4], sets))
    with pytest.raises(
        ValueError, match=r"terms.a: per_token_linear reads one position, but source has several; use pool"
    ):
        report(terms(f"terms: {{a: {one % ('many', 'per_token_linear')}}}"), view([[0] * 4], sets))
    with pytest.raises(ValueError, match=r"terms.b.predictor: that of 'a' has num 8, not None; set num to 8"):
        terms(f"terms: {{a: {one % ('at', 'per_token_linear')}, b: {one % ('at', '{kind: shared, term: a}')}}}")
    tied = terms(
        f"terms: {{a: {one % ('at', 'per_token_linear')}, b: {one % ('at', '{kind: shared, term: a, num: 8}')}}}"
    )
    assert tied["b"].predictor is None
    first, second = report(tied, view([[0] * 4], sets)).values()
    assert first.value.item() == second.value.item()


@pytest.mark.parametrize("part", [Projector(dim=3), Projector(3, "2x", 3, "none"), Projector(3, 7, 1)])
def test_projector_is_its_equation(part):
    torch.manual_seed(0)
    head = part.build(DIM).double()
    x = h = draw(4, 2, DIM)
    layers = iter(head)
    for place in range(part.num_layers):
        x = linear(x, next(layers))
        if place < part.num_layers - 1:
            x = layer_norm(x, next(layers)) if part.norm == "layer" else x
            assert isinstance(next(layers), torch.nn.GELU)
            x = F.gelu(x)
    assert x.shape == (4, 2, 3)
    torch.testing.assert_close(head(h), x)


def test_a_dense_layer_keeps_the_scale():
    torch.manual_seed(0)
    h = torch.randn(500, 256)
    assert float(dense(256, 300)(h).detach().std()) == pytest.approx(1, abs=0.05)


def test_widths_and_layers_that_cannot_be():
    assert [width(h, 10) for h in (7, "4x", "0.5x", "12")] == [7, 40, 5, 120]
    for hidden in ("wide", "x", "inf", "nan"):
        with pytest.raises(ValueError, match="is neither a width nor a multiple like 4x"):
            width(hidden, 10)
    for hidden in (0, -3, "0.01x"):
        with pytest.raises(ValueError, match="leaves no units"):
            width(hidden, 10)
    for part in (lambda: Mlp(num_layers=1), lambda: Projector(0), lambda: Projector(3, num_layers=0)):
        with pytest.raises(ValueError, match="at least"):
            part()


TERM = "{kind: predict, source: {depth: 1%s}, target: %s, loss: mse, predictor: %s}"
NEXT = "{kind: online, tap: {depth: 1/2, at: next}}"


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        ("identity", "terms.a: predictor: identity cannot go from width 5 to 8; use linear"),
        ("dynamics", "terms.a: predictor: dynamics keeps the width, but source has 5 and target 8"),
        ("{kind: mlp, residual: true}", "terms.a: predictor: a residual mlp needs equal widths, not 5 and 8"),
        ("{kind: mlp, hidden: wide}", "terms.a: hidden: 'wide' is neither"),
        ("{kind: shared, term: b}", "terms.a.predictor: no term 'b' with a predictor of its own"),
        ("{kind: shared, term: a}", "terms.a.predictor: no term 'a' with a predictor of its own"),
    ],
)
def test_predictors_that_do_not_fit_name_their_term(predictor, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        terms(
            "{heads: {narrow: {kind: projector, dim: 5}}, terms: {a: "
            + TERM % (", head: narrow", NEXT, predictor)
            + "}}"
        )


def test_a_shared_predictor_is_one_predictor():
    shared = TERM % ("", NEXT, "linear")
    text = f"terms: {{a: {shared}, b: {TERM % ('', NEXT, '{kind: shared, term: a}')}}}"
    built, seen = terms(text), view([[0, 0, 0]])
    assert built["b"].predictor is None
    assert not [key for key in built.state_dict() if ".b." in key]
    reports = report(built, seen)
    assert reports["a"].sum == reports["b"].sum
    reports["b"].sum.backward()
    assert built["a"].predictor.network.weight.grad.abs().sum() > 0
    alone = terms(f"terms: {{a: {shared}}}")
    report(alone, view([[0, 0, 0]]))["a"].sum.backward()
    assert torch.equal(alone["a"].predictor.network.weight.grad, built["a"].predictor.network.weight.grad)


def test_a_shared_predictor_must_fit():
    other = TERM % (", head: narrow", NEXT, "linear")
    mine = TERM % ("", NEXT, "{kind: shared, term: a}")
    text = f"{{heads: {{narrow: {{kind: projector, dim: 5}}}}, terms: {{a: {other}, b: {mine}}}}}"
    with pytest.raises(ValueError, match=r"terms\.b\.predictor: widths \(8, 8\) are not those of 'a', \(5, 8\)"):
        terms(text)


def test_dynamics_steps_from_one_position_to_others():
    text = "terms: {a: " + TERM % (", at: x", "{kind: token_embeddings, ids: x}", "dynamics") + "}"
    with pytest.raises(ValueError, match=r"terms\.a\.predictor: dynamics steps from position to position"):
        terms(text)
    text = "terms: {a: " + TERM % (", at: x", "{kind: online, tap: {depth: 1/2, at: x}}", "dynamics") + "}"
    with pytest.raises(ValueError, match=r"terms\.a: dynamics starts from one position, .*; use pool"):
        report(terms(text), view([[0, 0, 0]], {"x": [[[0, 1]]]}))
    seen = view([[0, 0, 0]])
    seen.inputs = None
    with pytest.raises(ValueError, match="dynamics needs input_ids"):
        report(terms("terms: {a: " + TERM % ("", NEXT, "dynamics") + "}"), seen)


def test_heads_of_another_precision_than_the_network():
    text = "{heads: {h: {kind: projector, dim: 8}}, terms: {a: " + TERM % (", head: h", NEXT, "mlp") + "}}"
    parsed = objective(text)
    built = Terms(parsed.resolve(4), parsed.heads, DIM, DIM)
    seen = view([[0, 0, 0]], dtype=torch.bfloat16)
    value = report(built, seen)["a"].sum
    assert value.dtype == torch.float32
    value.backward()
    assert seen.states[4].grad.abs().sum() > 0
    term = "{kind: predict, source: {depth: 1}, target: tokens, loss: next_token, decode_with: norm_and_lm_head}"
    text = f"terms: {{a: {term}}}"
    assert report(Terms(objective(text).resolve(4), {}, DIM, DIM), seen)["a"].sum.isfinite()
