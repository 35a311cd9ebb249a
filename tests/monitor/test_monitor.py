"""Monitors on latents of known health, and the gradient probe against separate backward passes."""

import math

import pytest
import torch
from accelerate import Accelerator
from checkpointing import recompute
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import ids
from toy_view import context, llama, terms, view

from latentlm.attach.state import latent_state
from latentlm.config.schema import kind_of
from latentlm.losses import BarlowTwins, Cosine, Invariance, Kl, Mmcr, Mse, NtXent, SoftCrossEntropy
from latentlm.monitor.statistics import (
    alike_within,
    class_health,
    constant_guess,
    cosine_margin,
    hit_rate,
    measure,
    pair_health,
    rank,
    set_health,
)
from latentlm.monitor.verdicts import verdicts

DIM = 16


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("known", [1, 2, 5, 16])
def test_rank_of_latents_of_known_rank(known):
    basis = torch.linalg.qr(draw(DIM, DIM))[0][:known]
    coordinates = torch.linalg.qr(draw(200, known) - draw(200, known).mean(0))[0]
    values = (coordinates - coordinates.mean(0)) @ basis + 10 * draw(DIM, seed=1)  # an offset is no rank
    assert rank(values) == pytest.approx(known, rel=0.02)


def test_rank_by_hand():
    values = torch.diag(torch.tensor([3.0, 1.0]))[[0, 1, 0, 1]] * torch.tensor([[1.0], [1], [-1], [-1]])
    share = [0.75, 0.25]  # singular values 3 sqrt 2 and sqrt 2, already centred
    assert rank(values) == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)), rel=1e-4)
    assert rank(torch.ones(5, 3)) == 0
    assert rank(torch.ones(1, 3)) == 0
    assert math.isnan(rank(torch.full((5, 3), torch.nan)))


def test_pair_health_by_hand():
    goal = draw(64, DIM)
    error = 0.1 * draw(64, DIM, seed=1)
    found = pair_health(goal + error, goal)
    spread = (goal - goal.mean(0)).square().sum(-1).mean()
    assert found["r2"] == pytest.approx(float(1 - error.square().sum(-1).mean() / spread), rel=1e-4)
    assert pair_health(goal.mean(0).expand(64, -1), goal)["r2"] == pytest.approx(0, abs=1e-5)
    assert found["cosine_margin"] > 0.9
    assert abs(pair_health(draw(64, DIM, seed=2), goal)["cosine_margin"]) < 0.2
    assert found["target_norm"] == pytest.approx(float(goal.norm(dim=-1).mean()))
    assert found["target_std"] == pytest.approx(1, rel=0.1)


def test_a_guess_finds_its_own_target_among_others():
    goal = draw(200, DIM, seed=1) + 5
    assert hit_rate(goal + 0.1 * draw(200, DIM, seed=2), goal) == 1
    assert hit_rate(goal - 40, goal) == 1  # what all share does not count
    by_chance = [hit_rate(draw(200, DIM, seed=seed), goal) for seed in range(10, 30)]
    assert 0.5 / 65 < sum(by_chance) / 20 < 2 / 65
    assert hit_rate(goal, goal.roll(100, 0)) == 0
    twice = goal[:100].repeat(2, 1)
    assert hit_rate(twice, twice) == 1  # an equal target is not another one
    assert hit_rate(torch.ones(200, DIM), goal) == 0


def test_few_others_are_all_of_them():
    goal = torch.eye(10)
    guess = goal.clone()
    guess[3], guess[4] = goal[4], goal[3]
    assert hit_rate(guess, goal) == pytest.approx(0.8)


def test_the_gap_is_to_a_stranger_and_not_to_a_neighbour():
    slow = draw(64, DIM).cumsum(0)  # neighbours nearly alike
    assert pair_health(slow, slow)["cosine_margin"] > 0.5


def test_the_margin_of_few_pairs_does_not_rule_out_that_they_are_learned():
    def named(pairs, dim, learned):
        found = []
        for seed in range(50):
            goal = draw(pairs, dim, seed=seed)
            health = pair_health(learned * goal + draw(pairs, dim, seed=1000 + seed), goal)
            found.append((health["cosine_margin"] < 0.01, "no-better-than-random-pairing" in verdicts(health, dim)))
        return [sum(each) for each in zip(*found, strict=True)]

    few_low, few_named = named(9, 3, 0.5)
    assert few_low > 0 == few_named  # paragraphs of a small batch, whose targets have few directions
    many_low, many_named = named(1024, DIM, 0.0)
    assert many_named == many_low > 30


def test_standard_error_of_the_margin_by_hand():
    one, other = draw(6, 4), draw(6, 4, seed=1)
    one, other = one - one.mean(0), other - other.mean(0)
    cos = [[float(a @ b / a.norm() / b.norm()) for b in (other[k], other[(k + 3) % 6])] for k, a in enumerate(one)]
    margins = [own - stranger for own, stranger in cos]
    mean = sum(margins) / 6
    error = math.sqrt(sum((margin - mean) ** 2 for margin in margins) / 5 / 6)
    found = cosine_margin(one + 3, other - 2)
    assert found == pytest.approx({"cosine_margin": mean, "cosine_margin_stderr": error}, rel=1e-4)


HEALTHY = draw(256, DIM)


@pytest.mark.parametrize("offset", [0.0, 5.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
def test_healthy_latents_are_silent(scale, offset):
    goal = scale * (HEALTHY + offset)
    for guess in (goal, goal + 0.5 * scale * draw(256, DIM, seed=1)):
        assert verdicts(pair_health(guess, goal), DIM) == []


@pytest.mark.parametrize(
    ("guess", "goal", "named"),
    [
        (HEALTHY, torch.ones(256, DIM) + 1e-5 * HEALTHY, {"constant-target"}),
        (HEALTHY, torch.zeros(256, DIM), {"constant-target"}),
        (HEALTHY, HEALTHY[:, :1] * torch.ones(DIM), {"low-rank-target"}),
        (1e6 * HEALTHY, 1e6 * HEALTHY, {"norm-blowup"}),
        (draw(256, DIM, seed=3), HEALTHY, {"no-better-than-random-pairing"}),
        (HEALTHY.roll(128, 0), HEALTHY, {"no-better-than-random-pairing"}),
        (torch.full((256, DIM), torch.nan), HEALTHY, {"not-finite"}),
        (HEALTHY, HEALTHY / 0, {"not-finite"}),
    ],
)
def test_constructed_failures_are_named(guess, goal, named):
    found = set(verdicts(pair_health(guess, goal), DIM))
    assert found >= named
    assert found - named <= {"no-better-than-random-pairing"}  # which a broken target entails


def test_a_head_that_says_the_same_of_every_input_is_named():
    bias = 3 * draw(1, DIM, seed=5)
    guess = bias + 1e-5 * draw(256, DIM, seed=6)
    assert verdicts(pair_health(guess, HEALTHY), DIM) == ["dead-head"]


@given(st.floats(0, 1))
def test_targets_that_are_alike_within_an_anchor_are_found(share):
    anchor = torch.arange(64).repeat_interleave(8)
    between, own = draw(64, DIM, seed=1)[anchor], draw(512, DIM, seed=2)
    found = alike_within(share**0.5 * between + (1 - share) ** 0.5 * own + 7, anchor)
    assert found == pytest.approx(share, abs=0.06)


def test_alike_within_by_hand_and_its_verdict():
    latents = torch.tensor([[0.0], [2.0], [4.0], [6.0], [5.0]])
    anchor = torch.tensor([3, 3, 9, 9, 9])  # means 1 and 5, all 3.4
    within, spread = (1 + 1 + 1 + 1 + 0) / (5 - 2), (3.4**2 + 1.4**2 + 0.6**2 + 2.6**2 + 1.6**2) / (5 - 1)
    assert alike_within(latents, anchor) == pytest.approx(1 - within / spread)
    assert alike_within(torch.ones(4, 2), torch.tensor([0, 0, 1, 1])) == 1
    healthy = pair_health(HEALTHY, HEALTHY)
    assert verdicts(healthy | {"target_between_example_share": 0.97}, DIM) == ["target-constant-within-example"]
    assert verdicts(healthy | {"target_between_example_share": 0.9}, DIM) == []


@pytest.mark.parametrize(
    ("samples", "named"),
    [
        (HEALTHY, []),
        (100 * (HEALTHY + 5), []),
        (torch.ones(256, DIM) + 1e-5 * HEALTHY, ["constant"]),
        (torch.zeros(3, 256, DIM), ["constant"]),
        (HEALTHY[:, :1] * torch.ones(DIM), ["low-rank"]),
        (1e6 * HEALTHY, ["norm-blowup"]),
        (HEALTHY / 0, ["not-finite"]),
    ],
)
def test_failures_of_a_set_are_named(samples, named):
    assert verdicts(set_health(samples), DIM) == named


def test_set_health_by_hand():
    z = torch.tensor([[[3.0, 0], [-3, 0], [0, 1], [0, -1]], [[1, 1], [1, 1], [1, 1], [1, 1]]])
    found = set_health(z)
    assert found["std"] == pytest.approx((4.5**0.5 + 0.5**0.5) / 4)
    assert found["norm"] == pytest.approx((8 / 4 + 2**0.5) / 2)
    assert found["rank"] == pytest.approx(rank(z[0]) / 2)


@pytest.mark.parametrize("loss", [Invariance(), NtXent(), BarlowTwins(), Mmcr()])
def test_views_that_are_no_nearer_to_each_other_than_to_strangers_are_named(loss):
    text = "terms: {a: {kind: regularize, source: {depth: 1, at: x}, loss: mse, sample_axis: examples}}".replace(
        "mse", kind_of(type(loss))
    )
    built, seen = terms(text), view([[0] * 64])
    seen.sets["x"] = torch.arange(64).view(1, 32, 2)
    for agree, verdict in [(True, "ok"), (False, "no-better-than-random-pairing")]:
        views = draw(32, 1, DIM).expand(-1, 2, -1) if agree else draw(32, 2, DIM)
        seen.states[max(seen.states)] = views.reshape(1, 64, DIM)
        assert measure(built, context(built, seen))["monitor/a/verdict"] == verdict


def test_logits_that_all_name_one_class_are_named_although_they_differ():
    logits = 5 * HEALTHY
    assert verdicts(pair_health(logits, logits) | class_health(logits, 1.0), DIM) == []
    one = logits.clone()
    one[:, 0] += 100
    assert verdicts(pair_health(one, one), DIM) == []  # their own statistics are those of healthy latents
    assert verdicts(pair_health(one, one) | class_health(one, 1.0), DIM) == ["one-class"]
    flat = 1e-3 * logits
    assert verdicts(pair_health(flat, flat) | class_health(flat, 1.0), DIM) == ["uniform"]


def test_known_answers_of_classes():
    even = 100 * torch.eye(8)
    assert class_health(even, 1.0) == pytest.approx({"classes": 8.0, "entropy": 0.0}, abs=1e-9)
    assert class_health(torch.zeros(5, 8), 0.1) == pytest.approx({"classes": 8.0, "entropy": 1.0})
    assert class_health(even[:1].expand(4, 8), 1.0)["classes"] == pytest.approx(1.0)


def test_measure_reports_every_latent_term():
    text = """
    terms:
      a: {kind: predict, source: {depth: 1}, target: {kind: online, tap: {depth: block 2, at: next}}, loss: mse}
      b: {kind: predict, source: {depth: 1}, target: tokens, loss: next_token, decode_with: lm_head}
      c: {kind: regularize, source: {depth: 1}, loss: sigreg, sample_axis: positions}
    """
    built, seen = terms(text), view([[0] * 6])
    made = context(built, seen)
    found = measure(built, made)
    guess, goal = built["a"].pairs(made)
    health = pair_health(guess.detach(), goal)
    assert found.pop("monitor/a/verdict") in ("ok", "no-better-than-random-pairing")
    nothing = (goal.mean(0) - goal).square().mean()
    assert found.pop("monitor/a/baseline_loss") == pytest.approx(float(nothing), rel=1e-5)
    assert {key: found.pop(f"monitor/a/{key}") for key in health} == health
    samples = built["c"].gather(made).detach()
    assert found.pop("monitor/c/verdict") == "ok"
    assert found == {f"monitor/c/{key}": value for key, value in set_health(samples).items()}
    assert measure(built, context(built, view([[0, 0, 0]]))) == {}


@pytest.mark.parametrize(
    "loss",
    [Mse(), Cosine(), Kl(temperature=0.2), SoftCrossEntropy(temperature=0.1, target_temperature=0.04)],
    ids=lambda loss: type(loss).__name__,
)
def test_no_constant_guess_has_a_smaller_loss(loss):
    """Found by descent from many starts in float64; of a cross-entropy it is the entropy of the mean distribution."""
    torch.manual_seed(0)
    goal = torch.randn(200, 6, dtype=torch.float64) * torch.rand(200, 1, dtype=torch.float64)
    baseline = float(loss(constant_guess(loss, goal).double(), goal).mean())
    best = []
    for _ in range(3):
        guess = torch.randn(6, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.LBFGS([guess], max_iter=200, line_search_fn="strong_wolfe")

        def step(guess=guess, optimizer=optimizer):
            optimizer.zero_grad()
            value = loss(guess.expand_as(goal), goal).mean()
            value.backward()
            return value

        optimizer.step(step)
        best.append(float(loss(guess.detach().expand_as(goal), goal).mean()))
    assert baseline == pytest.approx(min(best), rel=1e-5)
    if isinstance(loss, SoftCrossEntropy):
        share = (goal / loss.target_temperature).softmax(-1).mean(0)
        assert baseline == pytest.approx(float(-(share * share.log()).sum()), rel=1e-6)


def test_the_constant_guess_of_sharp_assignments_is_not_above_uniform():
    """DINO's targets: logarithms of sharp distributions, whose mean as logits would name a class that few have."""
    goal = (torch.randn(512, 64, generator=torch.Generator().manual_seed(0)) / 0.04).log_softmax(-1)
    loss = SoftCrossEntropy(temperature=0.1)
    baseline = float(loss(constant_guess(loss, goal), goal).mean())
    assert 0.9 * math.log(64) < baseline <= math.log(64)
    assert float(loss(goal.mean(0).expand_as(goal), goal).mean()) > 4 * math.log(64)


@pytest.mark.parametrize("loss", ["info_nce", "cosine", "kl", "smooth_l1"])
def test_r2_is_there_where_the_loss_regresses(loss):
    term = "{kind: predict, source: {depth: 1}, target: {kind: online, tap: {depth: block 2, at: next}}, loss: %s}"
    built = terms(f"terms: {{a: {term % loss}}}")
    found = measure(built, context(built, view([[0] * 6])))
    assert ("monitor/a/r2" in found) == (loss == "smooth_l1")
    assert "monitor/a/cosine_margin" in found


PROBED = """
monitor_every: 1
terms:
  low:
    kind: predict
    source: {depth: 1/2}
    target: {kind: online, tap: {depth: 3/4, at: next}}
    loss: mse
    weight: 0.7
  high:
    kind: predict
    source: {depth: 1, norm: final}
    target: {kind: online, tap: {depth: 0, at: next}}
    predictor: mlp
    loss: cosine
    weight: 3.0
  both: {kind: predict, source: {depth: 1/2}, target: tokens, loss: next_token,
         decode_with: norm_and_lm_head, weight: 0.2}
  round: {kind: regularize, source: {depth: 1/2}, loss: {kind: sigreg, num_slices: 8},
          sample_axis: positions, weight: 0.1}
  leaky:
    kind: predict
    source: {depth: 1/2}
    target: {kind: online, tap: {depth: 3/4, at: next}, stop_grad: false}
    loss: mse
"""
BATCH = {"input_ids": ids(3, 9), "labels": ids(3, 9)}


def separately(model, batch, counts=None, share=1.0):
    """Ratio and cosine of each term by a backward pass of its own per term and one for everything."""
    contexts, reports = [], []
    handles = [
        model.latent.register_forward_pre_hook(lambda module, args: contexts.append(args[0])),
        model.latent.register_forward_hook(lambda module, args, out: reports.append(out)),
    ]
    loss = model(**batch).loss
    for handle in handles:
        handle.remove()
    found = {}
    for name, each in reports[0].items():
        state = contexts[0].view.states[2 if name != "high" else 4]
        part = each.weight * each.sum * (share / each.count if counts is None else 1 / counts[name])
        (own,) = torch.autograd.grad(part, state, retain_graph=True)
        (whole,) = torch.autograd.grad(loss, state, retain_graph=True)
        rest = whole - own
        found[name] = float(own.norm() / rest.norm()), float(torch.cosine_similarity(own.flatten(), rest.flatten(), 0))
    return found


@pytest.mark.filterwarnings("ignore:a second backward")  # that is what is looked at
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("how", ["plain", "share", "counts"])
def test_the_probe_equals_separate_backward_passes(checkpointing, how):
    model, batch, share = llama(PROBED), dict(BATCH), 1.0
    run = latent_state(model)
    if how == "share":
        batch["num_items_in_batch"], share = torch.tensor(100), 24 / 100
    if how == "counts":
        run.steps.counts = {name: torch.tensor(41.0 + place) for place, name in enumerate(model.latent.terms)}
    want = separately(model, batch, run.steps.counts, share)
    run.monitoring.probe.looked = None
    if checkpointing:
        recompute(model, use_reentrant=False)
    (model(**batch).loss * 3).backward()  # as a scaler or accumulation would
    found = run.monitoring.probe.found
    assert "monitor/leaky/grad_ratio" not in found
    for name in ("low", "high", "both", "round"):
        assert found[f"monitor/{name}/grad_ratio"] == pytest.approx(want[name][0], rel=1e-3)
        assert found[f"monitor/{name}/grad_cosine"] == pytest.approx(want[name][1], abs=1e-3)


@pytest.mark.filterwarnings("ignore:a second backward")  # that is what is looked at
def test_it_looks_once_in_so_many_optimizer_steps_whatever_the_number_of_forwards():
    model = llama(PROBED.replace("monitor_every: 1", "monitor_every: 2"))
    run, accelerator = latent_state(model), Accelerator(cpu=True, gradient_accumulation_steps=3)
    wrapped, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-2))
    looked = []
    for _ in range(4 * 3):
        with accelerator.accumulate(wrapped):
            accelerator.backward(wrapped(**BATCH).loss)
            looked.append((model.latent.step, bool(run.monitoring.metrics.latest), bool(run.monitoring.probe.found)))
            optimizer.step()
            optimizer.zero_grad()
        run.monitoring.metrics.latest, run.monitoring.probe.found = {}, {}
    assert looked == [
        (step, first and step % 2 == 0, first and step % 2 == 0) for step in range(4) for first in (1, 0, 0)
    ]


def test_the_probe_changes_no_gradient():
    grads = []
    for monitor in (0, 1):
        model = llama(PROBED.replace("monitor_every: 1", f"monitor_every: {monitor}"))
        model(**BATCH).loss.backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *grads))
