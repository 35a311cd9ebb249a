"""Weights over training: schedules, and multipliers that keep a ratio of gradients."""

import pytest
import torch
from tiny_models import ids
from toy_view import context, llama, objective, report, terms, view

from latentlm.attach.state import latent_state
from latentlm.monitor.gradients import GradientProbe
from latentlm.objective.level_table import Levels
from latentlm.objective.objective import means, total
from latentlm.objective.terms import Predict
from latentlm.objective.weight import schedule

TERM = """
monitor_every: 1
terms:
  a:
    kind: predict
    source: {depth: 1/2}
    target: {kind: online, tap: {depth: 3/4, at: next}}
    loss: mse
    weight: {value: %s, grad_ratio: %s}
"""


def test_a_term_follows_its_schedule():
    text = TERM.replace("{value: %s, grad_ratio: %s}", "{value: 2.0, start: 1, ramp: 2}")
    built, found = terms(text), []
    for step in range(4):
        reports = report(built, view([[0, 0, 0]]), step)
        found.append(reports["a"].weight)
        torch.testing.assert_close(total(reports), found[-1] * reports["a"].value)
    assert found == [0, 1, 2, 2]


def test_a_term_that_is_off_keeps_its_weights_in_the_graph():
    built = terms(TERM.replace("{value: %s, grad_ratio: %s}", "{start: 9}"))
    total(report(built, view([[0, 0, 0]]))).backward()
    assert all(weight.grad is not None and (weight.grad == 0).all() for weight in built.parameters())


def step(built, probe, seen, scale=1.0, data=1.0, at=None, ends=True):
    """One forward and backward beside a data loss of known gradient; returns the weight and |data| / |term|."""
    for state in seen.states.values():
        state.grad = None
    made = context(built, seen, 0 if at is None else at)
    reports = built(made)
    latent = total(reports)
    ((own,),) = [torch.autograd.grad(reports["a"].value, seen.states[2], retain_graph=True)]
    probe.watch(built, made, reports, latent, means(reports))
    (scale * (latent + data * seen.states[2].sum())).backward()
    if ends:
        built.advance()
    known = data * torch.ones_like(own).norm() / own.norm()
    return float(reports["a"].weight), float(known)


@pytest.mark.parametrize(("first", "ratio"), [(1.0, 0.1), (1e-3, 0.5), (300.0, 2.0)])
def test_the_right_weight_is_found_at_the_first_measurement(first, ratio):
    built, probe, seen = terms(TERM % (first, ratio)), GradientProbe(), view([[0, 0, 0, 0]])
    weight, known = step(built, probe, seen)
    assert weight == pytest.approx(first)
    for scale in (1.0, 1024.0, 0.5):  # whatever the trainer does to the loss
        weight, known = step(built, probe, seen, scale)
        assert weight == pytest.approx(ratio * known)
        assert probe.found["monitor/a/grad_ratio"] == pytest.approx(ratio)


def test_it_follows_when_the_data_loss_changes():
    built, probe, seen = terms(TERM % (1.0, 0.1)), GradientProbe(), view([[0, 0, 0, 0]])
    for _ in range(5):
        step(built, probe, seen)
    for _ in range(20):
        weight, known = step(built, probe, seen, data=100.0)
    assert weight == pytest.approx(0.1 * known, rel=0.05)
    before = weight
    weight, _ = step(built, probe, seen, data=1e-3)  # one odd batch moves it by a share only
    weight, _ = step(built, probe, seen, data=100.0)
    assert before / 100 < weight < before


def test_the_ramp_still_holds():
    text = TERM.replace("{value: %s, ", "{start: 1, ramp: 4, ").replace("%s", "0.2")
    built, probe, seen = terms(text), GradientProbe(), view([[0, 0, 0, 0]])
    found = [
        step(built, probe, seen, at=at, ends=ends)
        for at, ends in ((0, False), (0, True), (1, True), (2, True), (9, True))
    ]
    assert [weight / known for weight, known in found] == pytest.approx([0, 0, 0.05, 0.1, 0.2])


def test_nothing_measured_changes_nothing():
    built, probe, seen = terms(TERM % (3.0, 0.1)), GradientProbe(), view([[-1, -1]])
    for _ in range(3):  # no pairs
        made = context(built, seen)
        reports = built(made)
        probe.watch(built, made, reports, total(reports), means(reports))
        (total(reports) + seen.states[2].sum()).backward()
        assert float(reports["a"].weight) == 3
    alone = view([[0, 0, 0]])
    for _ in range(3):  # nothing to compare with
        step(built, probe, alone, data=0.0)
    assert built.weights.balance[0].tolist() == [3, 0]


def test_all_forwards_of_a_step_have_one_weight():
    built, probe, seen = terms(TERM % (1.0, 0.1)), GradientProbe(), view([[0, 0, 0, 0]])
    found = [step(built, probe, seen, at=at, ends=at == 1 or turn == 2)[0] for turn, at in enumerate((0, 0, 0, 1, 1))]
    assert found[:3] == [1, 1, 1]
    assert found[3] == found[4] != 1


def test_micro_batches_may_be_forwarded_before_any_backward():
    built, probe, seen = terms(TERM % (1.0, 0.1)), GradientProbe(), view([[0, 0, 0, 0]])
    step(built, probe, seen)
    losses = [total(report(built, seen)) for _ in range(2)]
    sum(losses).backward()


def test_the_multiplier_goes_on_from_a_checkpoint():
    built, fresh, probe = terms(TERM % (1.0, 0.1)), terms(TERM % (1.0, 0.1), seed=1), GradientProbe()
    step(built, probe, view([[0, 0, 0, 0]]))
    assert built.weights.balance[0, 1] == 1
    fresh.load_state_dict(built.state_dict())
    weights = [report(each, view([[0, 0]]))["a"].weight for each in (built, fresh)]
    assert weights[0] == weights[1] != 1
    assert "balance" not in terms(TERM.replace("{value: %s, grad_ratio: %s}", "1.0")).state_dict()


TWO = """
monitor_every: 1
terms:
  a:
    kind: predict
    source: {depth: 1/2}
    target: {kind: online, tap: {depth: 3/4, at: next}}
    loss: mse
    weight: {value: 40.0, grad_ratio: 0.1}
  b:
    kind: predict
    source: {depth: 1, at: ends}
    target: {kind: token_embeddings, ids: words}
    loss: info_nce
    weight: {value: 0.001, grad_ratio: 0.3}
"""


def test_two_terms_of_a_network_keep_their_ratios_while_it_trains():
    model = llama(TWO)
    words = torch.tensor([[[3, 4]], [[5, 6]], [[7, 8]]])
    latent = {"segments": torch.zeros(3, 9, dtype=torch.long), "words": words, "ends": torch.full((3, 1, 1), 4)}
    batch = {"input_ids": ids(3, 9), "labels": ids(3, 9), "latent": latent}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    for _ in range(12):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = latent_state(model).monitoring.probe.found
    assert found["monitor/a/grad_ratio"] == pytest.approx(0.1, rel=0.02)
    assert found["monitor/b/grad_ratio"] == pytest.approx(0.3, rel=0.02)


def on_rank(text: str, seed: int) -> list:
    from torch import distributed

    rank = distributed.get_rank()
    built, probe = terms(text), GradientProbe()
    rows = [[0] * 4] if rank == 0 or seed == 0 else [[-1] * 4]  # with seed 1 the second rank has no pairs
    norms = []
    for turn in range(3):
        seen = view(rows, seed=10 * seed + 2 * turn + rank)
        made = context(built, seen, turn)
        reports = built(made)
        probe.watch(built, made, reports, total(reports), means(reports))
        (total(reports) + (1 + rank) * seen.states[2].sum()).backward()
        norms.append(built.weights.measured.get("a", (0.0, 0.0)))
        built.advance()
    return [built.weights.balance[0].tolist(), norms]


@pytest.mark.parametrize("seed", [0, 1])
def test_ranks_agree(pool, seed):
    (balance, norms), (other, others) = pool.run(on_rank, TERM % (1.0, 0.1), seed)
    assert balance == other
    log = 0.0
    for turn, (one, two) in enumerate(zip(norms, others, strict=True)):
        wanted = 0.1 * (one[1] + two[1]) / (one[0] + two[0])
        log += max(1 / (turn + 1), 0.3) * (torch.tensor(wanted).log() - log)
    assert balance == pytest.approx([float(log.exp()), 3])


def test_what_cannot_be_is_refused():
    def raises(text, message):
        with pytest.raises(ValueError, match=message):
            objective(text).resolve(4)

    good = TERM % (1.0, 0.1)
    raises(
        good.replace("monitor_every: 1", "monitor_every: 0"), r"terms\.a\.weight: grad_ratio is measured by the monitor"
    )
    raises(good.replace("}}\n    loss", "}, stop_grad: false}\n    loss"), "cannot be measured where the target has")
    raises("lm_weight: 0.0\n" + good, r"terms\.a\.weight: grad_ratio has nothing to hold to; set lm_weight above 0")
    raises(TERM % (1.0, -0.1), "must be above 0")
    raises(TERM % (0.0, 0.1), "must be above 0")
    raises(good.replace("value: 1.0", "start: -1"), r"terms\.a\.weight.*start -1; set it to 0 steps or more")
    raises(good.replace("monitor_every: 1", "monitor_every: -1"), "monitor_every: must be 0")
    ladder = (
        "terms: {a: {kind: levels, sources: [1], targets: [1], target: {stop_grad: false}, weight: {grad_ratio: 1}}}"
    )
    raises(ladder, "cannot be measured")
    both = (TERM % (1.0, 1.0)) + (TERM % (1.0, 1.0)).partition("terms:")[2].replace("a:", "b:", 1)
    raises(both, r"grad_ratio \[1\.0, 1\.0\] cannot all hold at once")


def test_the_cells_of_a_ladder_share_a_ratio():
    ladder = objective("terms: {a: {kind: levels, sources: [1/2, 1], targets: [data, 1], weight: {grad_ratio: 0.2}}}")
    assert isinstance(ladder.terms["a"], Levels)
    cells = ladder.resolve(4)
    assert all(isinstance(cell, Predict) for cell in cells.values())
    assert [schedule(cell.weight).grad_ratio for cell in cells.values()] == pytest.approx([0.05] * 4)
