"""The level table: its weights, what it expands into, and the published objectives that are tables."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from test_equations_text import BATCH, check, smooth_l1
from tiny_models import ids
from toy_view import llama, objective

from latentlm.components.predictors import Linear
from latentlm.components.tap import Tap
from latentlm.components.targets import Ema, Frozen, Online
from latentlm.objective.level_table import Levels, LevelWeights
from latentlm.objective.terms import Predict
from latentlm.objective.weight import Weight


def ladder(text, layers=4):
    return objective(f"terms: {{ladder: {{kind: levels, {text}}}}}").resolve(layers)


shares = st.one_of(st.none(), st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3]))
DEPTHS = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4, unique=True)


@given(shares, shares, shares, shares, DEPTHS, DEPTHS, st.booleans())
def test_every_row_adds_up_to_one(diagonal, deepest, last, data, sources, targets, has_data):
    blocks = [*(f"block {t}" for t in targets), *(["data"] if has_data else [])]
    table = Levels(tuple(f"block {s}" for s in sources), tuple(blocks), LevelWeights(diagonal, deepest, last, data))
    for row in table.matrix(4):
        assert sum(row) == pytest.approx(1)
        assert min(row) >= 0


def test_weights_of_ci_jepa():
    text = "sources: [1/4, 1/2, 3/4, 1], targets: [1/4, 1/2, 3/4, 1], weights: {top: 0.5, top_to_top: 0.8}"
    (table,) = objective(f"terms: {{a: {{kind: levels, {text}}}}}").terms.values()
    third = pytest.approx(0.5 / 3)
    assert table.matrix(4)[:3] == [[third, third, third, 0.5]] * 3
    assert table.matrix(4)[3] == [pytest.approx(0.2 / 3)] * 3 + [0.8]
    cells = ladder(text)
    assert len(cells) == 16
    assert cells["ladder/1_to_4"].weight == Weight(0.5 / 4)
    assert cells["ladder/4_to_4"].weight == Weight(0.8 / 4)
    assert sum(cell.weight.value for cell in cells.values()) == pytest.approx(1)


def test_one_source_that_predicts_the_deepest_level_alone_is_a_plain_term():
    text = "sources: [1], targets: [1/4, 1/2, 3/4, 1], weights: {top: 1, top_to_top: 1}, target: {normalize: none}"
    (cell,) = ladder(text + ", loss: mse, weight: 0.3").values()
    plain = """
    terms:
      ladder:
        kind: predict
        source: {depth: 1}
        target: {kind: online, tap: {depth: 1, at: next}}
        loss: mse
        weight: {value: 0.3}
    """
    assert cell == objective(plain).resolve(4)["ladder"]


@pytest.mark.parametrize(
    ("rule", "row"),
    [
        ("{}", [1 / 3, 1 / 3, 1 / 3]),
        ("{data: 0.4}", [0.4, 0.3, 0.3]),
        ("{data: 0.4, same_depth: 0.6}", [0.4, 0.6, 0.0]),
        ("{data: 0.7, top: 0.1}", [0.7, 0.2, 0.1]),
        ("{same_depth: 0.5}", [0.25, 0.5, 0.25]),
        ("{data: 0.2, same_depth: 0.2, top: 0.4}", [0.25, 0.25, 0.5]),  # no rest: scaled up
    ],
)
def test_a_rule_by_hand(rule, row):
    (table,) = objective(
        f"terms: {{a: {{kind: levels, sources: [1/2], targets: [data, 1/2, 1], weights: {rule}}}}}"
    ).terms.values()
    assert table.matrix(4) == [pytest.approx(row)]


def test_shares_that_end_beside_one_make_no_ghost_cells():
    cells = ladder("sources: [1/2], targets: [data, 1/4, 1/2, 1], weights: {data: 0.7, same_depth: 0.2, top: 0.1}")
    assert set(cells) == {"ladder/2_to_data", "ladder/2_to_2", "ladder/2_to_4"}


def test_a_full_matrix_equals_its_double_sum():
    rows = [[0.5, 0.25, 0.25], [0.0, 0.125, 0.875]]
    text = f"sources: [1/4, 1], targets: [data, 1/2, 1], weights: {rows}, weight: 0.3"
    model = llama(f"terms: {{ladder: {{kind: levels, {text}}}}}", torch.float64)
    predictors, head = {n: t.predictor for n, t in model.latent.terms.items()}, model.lm_head.weight.detach().clone()
    assert set(predictors) == {f"ladder/{c}" for c in ("1_to_data", "1_to_2", "1_to_4", "4_to_2", "4_to_4")}

    def equation(h, raw):
        value = 0
        for source, row in zip((1, 4), rows, strict=True):
            for target, weight in zip(("data", 2, 4), row, strict=True):
                if weight == 0:
                    continue
                layer = predictors[f"ladder/{source}_to_{target}"].network
                guess = raw[source][:, :-1] @ layer.weight.T + layer.bias
                if target == "data":
                    logits = model.model.norm(guess) @ head.T
                    losses = F.cross_entropy(logits.flatten(0, 1), BATCH["labels"][:, 1:].flatten(), reduction="none")
                else:
                    goal = raw[target][:, 1:].detach()
                    goal = (goal - goal.mean(-1, keepdim=True)) / (
                        goal.var(-1, correction=0, keepdim=True) + 1e-5
                    ).sqrt()
                    losses = smooth_l1(guess - goal)
                value = value + 0.3 / 2 * weight * losses.mean()
        return value

    raw: dict = {}
    for depth, layer in enumerate(model.model.layers, 1):
        layer.register_forward_hook(lambda module, args, out, depth=depth: raw.update({depth: out}))
    check(model, BATCH, lambda h: equation(h, dict(raw)))


def test_every_depth_predicts_the_data_layerskip():
    text = "sources: [1/4, 1/2, 3/4, 1], targets: [data], predictor: identity, weight: 4.0"
    model = llama(f"terms: {{ladder: {{kind: levels, {text}}}}}", torch.float64)
    head = model.lm_head.weight.detach().clone()
    batch = BATCH | {"labels": BATCH["labels"].masked_fill(ids(3, 9, 5) % 3 == 0, -100)}
    assert not list(model.latent.parameters())

    def equation(h):
        normed = [*map(model.model.norm, h[1:4]), h[4]]
        goal = batch["labels"][:, 1:].flatten()
        return sum(F.cross_entropy((z @ head.T)[:, :-1].flatten(0, 1), goal) for z in normed)

    check(model, batch, equation)


def test_the_data_level_at_the_top_is_the_models_own_loss():
    model = llama("terms: {ladder: {kind: levels, sources: [1], targets: [data], predictor: identity}}")
    out = model(**BATCH)
    torch.testing.assert_close(out.latent_loss, out.data_loss)
    trunk = [p for n, p in model.named_parameters() if "lm_head" not in n]
    ours = torch.autograd.grad(out.latent_loss, trunk, retain_graph=True)
    theirs = torch.autograd.grad(out.loss - out.latent_loss, trunk)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("teacher", "target"),
    [
        ("{}", Online(Tap("1/2", at="b"), True, "layer")),
        ("{stop_grad: false, normalize: none}", Online(Tap("1/2", at="b"), False, "none")),
        ("{teacher: ema, momentum: 0.5}", Ema(Tap("1/2", at="b"), 0.5, "layer")),
        ("{teacher: frozen, normalize: l2}", Frozen(Tap("1/2", at="b"), "l2")),
    ],
)
def test_spans_and_teachers(teacher, target):
    relation = "{kind: span_pairs, source: a, target: b}"
    cells = ladder(f"sources: [1], targets: [1/2], align: {relation}, target: {teacher}, loss: cosine")
    (cell,) = cells.values()
    assert isinstance(cell, Predict)
    assert (cell.source, cell.target, cell.predictor) == (Tap(1, at="a").resolve(4), target.resolve(4), Linear())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: [], targets: [1]", "needs at least one source and one target"),
        ("sources: [1], targets: [data], align: {kind: span_pairs, source: a, target: b}", "leave 'data' out"),
        ("sources: [data], targets: [1]", "depth 'data': use a fraction"),
        ("sources: [1], targets: [top]", "depth 'top': use a fraction"),
        ("sources: [1/2, block 2], targets: [1]", "two of its depths are the same block of 4"),
        ("sources: [1], targets: [1/2, 1], weights: [[1.0]]", "must be 1 rows of 2 numbers"),
        ("sources: [1], targets: [1/2, 1], weights: [[0.5, 0.6]]", r"row \[0.5, 0.6\] adds up to 1.1"),
        ("sources: [1], targets: [1/2, 1], weights: [[1.5, -0.5]]", "has a weight below 0"),
        ("sources: [1], targets: [1/2, 1], weights: {top: 1.5}", r"share must lie in 0\.\.1, got 1\.5"),
        ("sources: [1/2], targets: [1/2, 1], weights: {top: 0.7, same_depth: 0.7}", "add up to 1.4"),
        ("sources: [1], targets: [1], target: {teacher: ema, momentum: 2}", "momentum and final_momentum must lie in"),
        ("sources: [block 7], targets: [1]", "the model has 4 blocks"),
    ],
)
def test_tables_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=rf"objective\.terms\.ladder.*{message}"):
        ladder(text)
