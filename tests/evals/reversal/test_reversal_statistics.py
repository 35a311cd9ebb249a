"""Laws of the numbers: chance, ties, the null, and intervals that are never narrower than what was seen."""

import itertools
import math
import random

import pytest
import torch
from latentlm_evals.reversal.evaluate import _likelihood
from latentlm_evals.statistics.bootstrap import _bounds, bootstrap, open_bootstrap
from latentlm_evals.statistics.permutation import delta_logp, permutation_test
from latentlm_evals.statistics.ranking import beats_three, centre, chance_mrr, gold_ranks, reciprocal_ranks


def test_general_likelihood_of_a_candidate_is_no_knowledge():
    """Two subsets, nothing known, but names of the other subset are unlikely everywhere."""
    torch.manual_seed(0)
    num = 60
    gold = torch.arange(num // 2).repeat_interleave(10)
    noise = torch.randn(len(gold), num, dtype=torch.float64)
    mixed = noise - 5.0 * (torch.arange(num) >= num // 2)
    own = noise[:, : num // 2]
    assert gold_ranks(mixed, gold).mean() < 17  # the artefact: 30.5 of 60 is chance
    assert float(delta_logp(mixed, gold).mean()) > 2
    assert gold_ranks(centre(mixed), gold).mean() == pytest.approx(30.5, abs=3)
    assert gold_ranks(centre(own), gold).mean() == pytest.approx(15.5, abs=1.5)
    # one popular answer takes first place in every row unless its own mean is taken off
    popular = own + 50.0 * (torch.arange(num // 2) == 0)
    assert torch.equal(gold_ranks(centre(popular), gold), gold_ranks(centre(own), gold))
    facts = [str(k) for k in gold.tolist()]
    assert _likelihood([(popular, gold)], facts, 0, 10)["mrr"] == _likelihood([(own, gold)], facts, 0, 10)["mrr"]


def test_a_constant_model_is_at_chance():
    scores, gold = torch.zeros(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    assert gold_ranks(scores, gold).tolist() == [3.0] * 4
    assert reciprocal_ranks(scores, gold).tolist() == pytest.approx([chance_mrr(5)] * 4, rel=1e-15)
    assert beats_three(scores, gold).tolist() == [0.25] * 4
    assert chance_mrr(30) == pytest.approx(0.133, abs=5e-4)
    assert permutation_test([(scores, gold)], rounds=200) == (1.0, 0.0)


def test_permutation_null_is_calibrated_at_entity_level():
    """Templates of an entity share their noise: p stays uniform, where a test over rows would see signal everywhere."""
    gold = torch.arange(8).repeat_interleave(10)
    found = []
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        shared = torch.randn(8, 8, generator=draw, dtype=torch.float64)[gold]
        scores = shared + 0.1 * torch.randn(80, 8, generator=draw, dtype=torch.float64)
        found.append(permutation_test([(scores, gold)], seed=seed, rounds=200)[0])
    p = torch.tensor(found).sort().values
    distance = (p - torch.arange(1, 201) / 200).abs().max()
    assert distance < 1.63 / math.sqrt(200)  # Kolmogorov-Smirnov, 1 %
    planted = torch.randn(80, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    planted[torch.arange(80), gold] += 1.0
    assert permutation_test([(planted, gold)], rounds=2000)[0] < 0.01
    assert permutation_test([(planted[:10], gold[:10])]) is None  # one entity cannot be swapped


def test_bootstrap_draws_facts_not_rows():
    values = torch.tensor([1.0] * 10 + [0.0] * 10, dtype=torch.float64).repeat(10)
    facts = [f"fact{k // 10}" for k in range(200)]  # every fact is all right or all wrong
    rows = [f"row{k}" for k in range(200)]
    clustered, single = bootstrap(values, facts)[0], bootstrap(values, rows)[0]
    assert clustered == pytest.approx(math.sqrt(0.25 / 20), rel=0.1)
    assert single == pytest.approx(math.sqrt(0.25 / 200), rel=0.1)
    assert bootstrap(torch.zeros(300), [f"fact{k % 30}" for k in range(300)])[2] == pytest.approx(0.116, abs=1e-3)
    drawn, limited = open_bootstrap(values - 7, facts), bootstrap(values, facts)
    assert [end + 7 for end in drawn[1:]] == pytest.approx(limited[1:])


@pytest.mark.parametrize("number", [1, 4, 30])
def test_an_interval_without_draws_is_the_exact_binomial_one_or_wider(number):
    facts = [f"fact{k}" for k in range(number)]
    edge = 0.025 ** (1 / number)
    assert bootstrap(torch.zeros(number), facts) == pytest.approx((0.0, 0.0, 1 - edge))
    assert bootstrap(torch.ones(number), facts) == pytest.approx((0.0, edge, 1.0))
    for hair in (1e-16, 1e-310):  # probabilities that are 0 or 1 but for rounding, or underflow on the way
        values = torch.full((number,), hair, dtype=torch.float64)
        assert bootstrap(values, facts) == pytest.approx((0.0, 0.0, 1 - edge), abs=1e-9)
        assert bootstrap(1 - values, facts) == pytest.approx((0.0, edge, 1.0), abs=1e-9)
    _, low, high = bootstrap(torch.full((number,), 0.25), facts)  # as ties score
    assert low < 0.25 < high
    for p in (low, high):  # Chernoff: number KL(1/4 || p) = log 40
        assert number * (0.25 * math.log(0.25 / p) + 0.75 * math.log(0.75 / (1 - p))) == pytest.approx(math.log(40))
    assert open_bootstrap(torch.full((number,), 0.25), facts) is None
    # one fact, right in half of its templates, says next to nothing
    assert bootstrap(torch.tensor([0.0, 1.0] * number), ["one"] * 2 * number)[1:] == pytest.approx((0, 1), abs=2e-4)


def test_bounds_hold_for_values_between_zero_and_one():
    """95 % intervals of a mean of n uniform draws hold 1/2 at least 95 % of the time; for coins too."""
    for draw in (torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)).double(),
                 (torch.rand(4000, 6, generator=torch.Generator().manual_seed(1)) < 0.5).double()):  # fmt: skip
        held = [low <= 0.5 <= high for low, high in (_bounds(float(row.mean()), 6) for row in draw)]
        assert sum(held) / len(held) >= 0.95


def test_ties_are_the_mean_over_random_orders():
    scores = torch.tensor([[3.0, 2.0, 2.0, 2.0, 1.0, 0.0], [5.0, 5.0, 1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    gold = torch.tensor([2, 0])
    inverse, best = torch.zeros(2), torch.zeros(2)
    rng = random.Random(0)
    for _ in range(4000):
        noisy = scores + 0.1 * torch.tensor([[rng.random() for _ in row] for row in scores])
        inverse += 1 / gold_ranks(noisy, gold)
        for i in range(2):
            wrong = rng.sample([c for c in range(6) if c != gold[i]], 3)
            best[i] += float(noisy[i, gold[i]] > noisy[i, wrong].max())
    assert reciprocal_ranks(scores, gold).tolist() == pytest.approx((inverse / 4000).tolist(), abs=0.01)
    assert reciprocal_ranks(scores, gold).tolist() == pytest.approx([(1 / 2 + 1 / 3 + 1 / 4) / 3, (1 + 1 / 2) / 2])
    assert beats_three(scores, gold).tolist() == pytest.approx((best / 4000).tolist(), abs=0.03)


def test_four_way_choice_is_the_share_of_all_draws_of_three():
    scores = torch.randn(7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gold = torch.arange(7)
    for row, right, found in zip(scores, gold, beats_three(scores, gold), strict=True):
        wrong = [float(value) for c, value in enumerate(row) if c != right]
        draws = list(itertools.combinations(wrong, 3))
        assert float(found) == pytest.approx(sum(float(row[right]) > max(draw) for draw in draws) / len(draws))


@pytest.mark.parametrize("prior", [False, True])
def test_a_model_that_ignores_the_prompt_is_at_chance_with_an_interval(prior):
    """Every item has the same log-probs: after the means are removed all answers tie, to the last ulp or not."""
    num = 30
    drawn = torch.randn(num, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = (drawn * prior).expand(2 * num, num)
    gold = torch.arange(num).repeat(2)
    found = _likelihood([(scores, gold)], [str(k) for k in gold.tolist()], 0, 50)
    assert found["mrr"] == pytest.approx(found["mrr_chance"], rel=1e-12)
    assert found["mcq"] == pytest.approx(found["mcq_chance"], rel=1e-12)
    assert found["mrr_low"] < found["mrr"] < found["mrr_high"]
    assert found["mcq_low"] < found["mcq"] < found["mcq_high"]
    assert found["rank"] == 15.5
    assert found["delta_logp"] == pytest.approx(0, abs=1e-12)
    assert found["delta_logp_p"] > 0.99 if not prior else found["delta_logp_p"] > 0.9


def test_a_pool_of_three_has_no_four_way_choice():
    scores, gold = torch.randn(6, 3, dtype=torch.float64), torch.arange(3).repeat(2)
    facts = [str(k) for k in gold.tolist()]
    small = _likelihood([(scores, gold)], facts, 0, 10)
    assert "mcq" not in small
    assert {"mrr_low", "mrr_high", "delta_logp_low", "delta_logp_high"} < small.keys()
    big = torch.eye(5, dtype=torch.float64), torch.arange(5)
    both = _likelihood([(scores, gold), big], [*facts, *"vwxyz"], 0, 10)
    assert both["mcq"] == 1  # of the five that have three others
    assert both["mcq_low"] == pytest.approx(0.025 ** (1 / 5))


def test_the_interval_of_delta_logp_holds_the_truth_and_not_the_spread_of_names():
    """Names differ by 20 nats whatever is asked, facts differ in what is known of them: 1 nat on average."""
    held, widths, gold = [], [], torch.arange(30).repeat(2)
    facts = [str(k) for k in gold.tolist()]
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        names, known = (torch.randn(30, generator=draw, dtype=torch.float64) for _ in range(2))
        scores = 20 * names + 0.3 * torch.randn(60, 30, generator=draw, dtype=torch.float64)
        scores[torch.arange(60), gold] += 1 + known[gold]
        found = _likelihood([(scores, gold)], facts, seed, 2)
        low, high = found["delta_logp_low"], found["delta_logp_high"]
        assert low < found["delta_logp"] < high
        held.append(low <= 1 <= high)
        widths.append(high - low)
    assert sum(held) / len(held) > 0.9
    assert max(widths) < 1.5  # 4 sd / root of 30 is 0.73; the names alone would make it 14
