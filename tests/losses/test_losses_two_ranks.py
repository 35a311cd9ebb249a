"""Two real ranks against one process: value and gradient, for even, uneven and empty shards."""

from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from latentlm import losses
from latentlm.distributed.collectives import all_gather_rows, all_reduce_count, all_reduce_sum, rank, world_size

SHARDS = [(4, 4), (5, 3), (1, 7), (0, 8)]
ROWS = [kind() for kind in get_args(losses.RowLoss) or (losses.RowLoss,)]
SETS = [kind() for kind in get_args(losses.SetLoss)]
VARIANTS = [
    losses.InfoNce(skip_duplicates=True),
    losses.Covariance(norm="d(d-1)"),
    losses.Sigreg(num_slices=3, chunk=2),
    losses.Visreg(num_slices=3, chunk=2),
    losses.BarlowTwins(std="unbiased"),
    losses.Invariance(num_global=1),
]
PARTS = [*ROWS, *SETS, *VARIANTS]


def inputs_of(part):
    generator = torch.Generator().manual_seed(0)
    if isinstance(part, losses.SetLoss):
        return [torch.randn(2, 8, 4, generator=generator, dtype=torch.float64)]
    pred, target = (torch.randn(8, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    target[6] = target[1]  # the same fact on both ranks
    return [pred, target]


def shard(x, sizes):
    """Own samples: the last axis but one is the sample axis of rows and of sets."""
    return x.split(sizes, dim=-2)[rank()].clone()


def loss_of(part, inputs):
    """Replicated value of a part, reduced the way `latentlm.distributed.collectives` prescribes."""
    if isinstance(part, losses.SetLoss):
        return part(*inputs, 5)
    values = part(*inputs)
    return all_reduce_sum(values.sum()) / all_reduce_count(len(values), values.device)


def value_and_gradients(part, sizes):
    inputs = [shard(x, sizes).requires_grad_() for x in inputs_of(part)]
    loss = loss_of(part, inputs)
    loss.backward()
    return loss.detach(), [x.grad / world_size() for x in inputs]  # the division is what gradient averaging does


@pytest.mark.parametrize("sizes", SHARDS, ids=str)
@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_two_ranks_equal_one(pool, part, sizes):
    value, gradients = value_and_gradients(part, (8,))
    results = pool.run(value_and_gradients, part, sizes)
    for theirs, _ in results:
        torch.testing.assert_close(theirs, value, rtol=1e-10, atol=1e-12)
    for ours, *shards in zip(gradients, *[theirs for _, theirs in results], strict=True):
        torch.testing.assert_close(torch.cat(shards, dim=-2), ours, rtol=1e-9, atol=1e-12)


def balanced(sizes):
    (logits,) = inputs_of(losses.Sigreg())
    return losses.sinkhorn(shard(logits, sizes), 0.5)


@pytest.mark.parametrize("sizes", SHARDS, ids=str)
def test_assignments_are_balanced_over_all_ranks(pool, sizes):
    parts = pool.run(balanced, sizes)
    torch.testing.assert_close(torch.cat(parts, dim=-2), balanced((8,)), rtol=1e-10, atol=1e-12)


def train_step(sizes):
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    model = DistributedDataParallel(net) if world_size() > 1 else net
    x, target = (torch.randn(8, width, generator=torch.Generator().manual_seed(1)).double() for width in (4, 3))
    pred = model(shard(x, sizes))
    sets = [losses.Sigreg(num_slices=8), losses.Variance(), losses.Covariance()]
    total = loss_of(losses.InfoNce(), [pred, shard(target, sizes)]) + sum(loss_of(part, [pred]) for part in sets)
    total.backward()
    return total.detach(), [p.grad for p in net.parameters()]


@pytest.mark.parametrize("sizes", [(4, 4), (3, 5)], ids=str)
def test_averaged_parameter_gradients_equal_one_process(pool, sizes):
    expected = train_step((8,))
    for result in pool.run(train_step, sizes):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)


def collectives():
    x = torch.full((2,), rank() + 1.0, requires_grad=True)
    total = all_reduce_sum(x)
    ((rank() + 1) * total).sum().backward()
    rows = torch.full((rank() + 1, 2), float(rank()), requires_grad=True)
    gathered, start = all_gather_rows(rows)
    (gathered * (rank() + 1)).sum().backward()
    none, place = all_gather_rows(torch.zeros(rank() * 2, dtype=torch.int64))
    return {
        "rank": (rank(), world_size()),
        "sum": (total.tolist(), x.tolist(), x.grad.tolist()),
        "count": all_reduce_count(3 + rank(), torch.device("cpu")),
        "rows": (gathered.tolist(), start, rows.grad.tolist()),
        "none": (none.tolist(), place),
    }


def test_collectives(pool):
    for number, result in enumerate(pool.run(collectives)):
        own = number + 1
        # the input is left alone; the gradient is that of L_0 + L_1, where L_r = (r + 1) * total
        assert result == {
            "rank": (number, 2),
            "sum": ([3.0, 3.0], [float(own)] * 2, [3.0, 3.0]),
            "count": 7,
            "rows": ([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]], number, [[3.0, 3.0]] * own),
            "none": ([0, 0], 0),
        }


def test_without_a_group_nothing_happens():
    x = torch.ones(2)
    assert (rank(), world_size()) == (0, 1)
    assert all_reduce_sum(x) is x
    assert all_gather_rows(x) == (x, 0)
    assert all_reduce_count(3, x.device) == 3


def one_sample_in_all(part):
    try:
        part(torch.zeros(2, 1 - rank(), 4), 0)
    except ValueError as error:
        return str(error)


def no_sample_anywhere(part):
    z = torch.zeros(2, 0, 4, requires_grad=True)
    value = part(z, 0)
    value.backward()
    return value.item(), z.grad is not None


@pytest.mark.parametrize("part", SETS, ids=repr)
def test_small_sets_end_alike_on_all_ranks(pool, part):
    messages = pool.run(one_sample_in_all, part)
    assert messages[0] == messages[1]
    assert pool.run(no_sample_anywhere, part) == [(0.0, True)] * 2


def own_negatives():
    generator = torch.Generator().manual_seed(rank())
    pred, target = (torch.randn(3, 4, generator=generator) for _ in range(2))
    return losses.InfoNce(gather=False)(pred, target), pred, target


def test_without_gather_negatives_stay_on_the_rank(pool):
    for values, pred, target in pool.run(own_negatives):
        torch.testing.assert_close(values, losses.InfoNce()(pred, target))


def fail():
    raise KeyError("lost")


def test_a_failing_rank_is_reported(pool):
    with pytest.raises(RuntimeError, match=r"rank 0:(.|\n)*lost(.|\n)*rank 1:"):
        pool.run(fail)
    assert [row["rank"][0] for row in pool.run(collectives)] == [0, 1]
