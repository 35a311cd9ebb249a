"""Assignments against loops over steps and places: running centres, balance, temperatures, ranks and checkpoints."""

import pytest
import torch
from tolerance import naive_sinkhorn
from toy_view import DIM, context, report, terms, view

from latentlm.components.assignments import Center, LinearSchedule, Sinkhorn, temperature_at
from latentlm.distributed.collectives import rank, world_size


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_centred(batches, momentum, temperatures):
    """Assignments of every batch, row by row."""
    center, out = torch.zeros(batches[0].shape[1], dtype=torch.float64), []
    for batch, temperature in zip(batches, temperatures, strict=True):
        rows = []
        for row in batch:
            exps = [((x - c) / temperature).exp() for x, c in zip(row, center, strict=True)]
            rows.append(torch.stack([e / sum(exps) for e in exps]))
        out.append(torch.stack(rows))
        center = momentum * center + (1 - momentum) * sum(batch) / len(batch)
    return out, center


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_running_centre_matches_the_equation_and_micro_batches_add_up(pieces):
    batches = [draw(6, 4, seed=seed) for seed in range(4)]
    part = Center(LinearSchedule(0.5, 0.9, 2), momentum=0.7)
    module, found = part.build(4).double(), []
    for step, batch in enumerate(batches):
        found.append(torch.cat([module(piece, step) for piece in batch.chunk(pieces)]))
        module.advance()
    wanted, center = naive_centred(batches, 0.7, [0.5, 0.7, 0.9, 0.9])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.exp(), theirs, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(module.center, center)
    before = module.center.clone()
    module.advance()  # a step without rows
    assert torch.equal(module.center, before)
    assert module.state_dict().keys() == {"center"}


def centred_over(sizes):
    module = Center(0.5).build(4).double()
    for seed in range(3):
        own = draw(6, 4, seed=seed).split(sizes)[rank()]
        found = module(own, 0)
        module.advance()
    return found, module.center


@pytest.mark.parametrize("sizes", [(3, 3), (5, 1), (0, 6)], ids=str)
def test_two_ranks_keep_the_centre_of_one(pool, sizes):
    assert world_size() == 1
    whole, center = centred_over((6,))
    (first, here), (second, there) = pool.run(centred_over, sizes)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(here, center, rtol=1e-12, atol=1e-12)
    assert torch.equal(here, there)


def test_temperatures():
    assert [temperature_at(LinearSchedule(0.04, 0.08, 4), step) for step in (0, 1, 4, 9)] == pytest.approx(
        [0.04, 0.05, 0.08, 0.08]
    )
    assert temperature_at(0.1, 7) == 0.1


TERM = """
heads: {codes: {kind: prototypes, dim: 5, num_layers: 0}}
terms:
  a:
    kind: predict
    source: {depth: block 2, at: some, head: codes}
    target: {kind: ema, tap: {depth: block 3, at: some, head: codes}, normalize: none, online_head: true, assign: %s}
    predictor: identity
    loss: {kind: soft_cross_entropy, temperature: 0.3}
"""
SETS = {"some": [[[1, 2]], [[0, -1]], [[3, 1]]], "all": [[[0, 1, 2]], [[1, 2, 3]], [[1, 0, 3]]]}


def seen_with(assign):
    built, seen = terms(TERM % assign), view([[0] * 4] * 3, SETS)
    teacher = view([[0] * 4] * 3, SETS, seed=1)
    return built, seen, teacher, built.heads["codes"](teacher.states[3]).detach()


def test_over_the_pairs_and_place_by_place():
    built, seen, teacher, logits = seen_with("{kind: sinkhorn, temperature: 0.5}")
    where = [(0, 1), (0, 2), (1, 0), (2, 3), (2, 1)]
    made = context(built, seen, ema=teacher)
    together = naive_sinkhorn(torch.stack([logits[at] for at in where]), 0.5)
    torch.testing.assert_close(built["a"].pairs(made)[1].exp(), together, rtol=1e-9, atol=1e-12)

    sets = SETS | {"all": [[[0, 1, 2]], [[0, 1, 2]], [[1, 0, 3]]]}
    built = terms(TERM % "{kind: sinkhorn, temperature: 0.5, per_position_of: all}")
    seen, teacher = view([[0] * 4] * 3, sets), view([[0] * 4] * 3, sets, seed=1)
    made = context(built, seen, ema=teacher)
    logits = built.heads["codes"](teacher.states[3]).detach()
    table = {}
    for place in range(3):
        rows = [(b, sets["all"][b][0][place]) for b in range(3)]
        table |= dict(zip(rows, naive_sinkhorn(torch.stack([logits[at] for at in rows]), 0.5), strict=True))
    goal = built["a"].pairs(made)[1].exp()
    for found, at in zip(goal, where, strict=True):
        torch.testing.assert_close(found, table[at], rtol=1e-9, atol=1e-12)


def test_what_a_set_does_not_reach_shows_and_a_set_with_gaps_is_refused():
    built, seen, teacher, _ = seen_with("{kind: sinkhorn, per_position_of: all}")
    made = context(built, seen, ema=teacher)
    assert built["a"].pairs(made)[1].isnan().all(1).tolist() == [False, False, True, False, False]
    built, seen, teacher, _ = seen_with("{kind: sinkhorn, per_position_of: some}")
    with pytest.raises(ValueError, match="per_position_of 'some' has places that some anchors miss"):
        report(built, seen, ema=teacher)


CLUSTERS = """
heads: {codes: {kind: prototypes, dim: 5, num_layers: 0}}
terms:
  found:
    kind: predict
    source: {depth: block 3, at: all, head: codes, of: ema}
    target: {kind: ema, tap: {depth: block 3, at: all, head: codes}, normalize: none, online_head: true, assign: %s}
    predictor: identity
    loss: {kind: soft_cross_entropy, temperature: 0.3}
"""


def test_clusters_learn_from_the_slow_copy_and_reach_nothing_else():
    built = terms(CLUSTERS % "{kind: sinkhorn, temperature: 0.2, per_position_of: all}")
    seen, teacher = view([[0] * 4] * 3, SETS), view([[0] * 4] * 3, SETS, seed=1)
    for state in teacher.states.values():
        state.requires_grad_(False)
    found = report(built, seen, ema=teacher)["found"]
    logits = built.heads["codes"](teacher.states[3])
    values = []
    for place in range(3):
        rows = torch.stack([logits[b, SETS["all"][b][0][place]] for b in range(3)])
        wanted = naive_sinkhorn(rows.detach(), 0.2)
        values += [-(q * (row / 0.3).log_softmax(-1)).sum() for q, row in zip(wanted, rows, strict=True)]
    torch.testing.assert_close(found.value, torch.stack(values).mean(), rtol=1e-9, atol=1e-12)
    found.sum.backward()
    assert built.heads["codes"][-1].weight.grad.abs().sum() > 0
    assert all(state.grad is None for state in seen.states.values())


def test_terms_share_the_assignments_they_agree_on():
    text = (
        CLUSTERS % "{kind: sinkhorn, per_position_of: all}"
        + TERM.split("terms:")[1] % "{kind: sinkhorn, per_position_of: all}"
    )
    built = terms(text)
    sets = SETS | {"all": [[[0, 1, 2, 3]]] * 3}
    calls = []
    for _, term in built.items():
        term.assigner.register_forward_hook(lambda *each: calls.append(each[2].shape))
    report(built, view([[0] * 4] * 3, sets), ema=view([[0] * 4] * 3, sets, seed=1))
    assert calls == [(4, 3, 5)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TERM % "{kind: center, temperature: 0}", "temperature: 0.0; it must be above 0"),
        (TERM % "{kind: center, momentum: 1}", "center: momentum must lie in 0..1 and below 1"),
        (TERM % "{kind: sinkhorn, iterations: 0}", "sinkhorn: iterations must be 1 or more"),
        (TERM % "{kind: sinkhorn, temperature: {start: 1, end: 1, steps: 0}}", "temperature: start and end must be"),
        (
            (TERM % "{kind: sinkhorn, per_position_of: all}").replace(
                "depth: block 3, at: some", "depth: block 3, at: some, pool: mean"
            ),
            "ema: assign per_position_of 'all' needs single positions; use pool: none",
        ),
        (
            (TERM % "center").replace("depth: block 3, at", "depth: block 3, of: ema, at"),
            "ema: the target itself says whose states",
        ),
        ((TERM % "center").replace("at: some, head: codes}, norm", "at: some}, norm"), "ema: online_head needs a head"),
        (
            (TERM % "center").replace("kind: ema", "kind: online, stop_grad: false").replace("online_head: true, ", ""),
            "online: an assignment has no gradient",
        ),
        (
            (TERM % "center")
            .replace("kind: ema", "kind: online")
            .replace("online_head: true, ", "")
            .replace("depth: block 2, at", "depth: block 2, of: ema, at"),
            "terms.a.source: of ema, but no target has that teacher",
        ),
    ],
)
def test_mistakes_are_one_line(text, line):
    with pytest.raises(ValueError, match="(?s)" + line.replace(".", "[.]")):
        terms(text)


def test_whether_a_batch_is_the_sum_of_its_parts():
    built = terms(TERM % "center")["a"].spec, terms(TERM % "sinkhorn")["a"].spec
    assert [term.per_sample for term in built] == [True, False]
    assert DIM == 8
    assert Sinkhorn().build(3).state_dict() == {}
