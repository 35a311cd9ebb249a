"""Laws of the numbers: chance, ties, the null, and intervals that are never narrower than what was seen."""

import itertools
import math
import random

import pytest
import torch
from latentlm_evals.reversal.scoring import _likelihood
from latentlm_evals.statistics.bootstrap import bounded_mean, chernoff, open_mean
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
    first, second = (_likelihood([(scores, gold)], facts, 0, 10)["mrr"] for scores in (popular, own))
    assert first == second


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
    clustered, single = bounded_mean(values, facts).stderr, bounded_mean(values, rows).stderr
    assert clustered == pytest.approx(math.sqrt(0.25 / 20), rel=0.1)
    assert single == pytest.approx(math.sqrt(0.25 / 200), rel=0.1)
    assert bounded_mean(torch.zeros(300), [f"fact{k % 30}" for k in range(300)]).high == pytest.approx(0.116, abs=1e-3)
    drawn, limited = open_mean(values - 7, facts), bounded_mean(values, facts)
    assert [end + 7 for end in drawn.interval] == pytest.approx(limited.interval)


def ends(values, facts):
    """Standard error, low and high."""
    found = bounded_mean(values, facts)
    return found.stderr, found.low, found.high


@pytest.mark.parametrize("number", [1, 4, 30])
def test_an_interval_without_draws_is_the_exact_binomial_one_or_wider(number):
    facts = [f"fact{k}" for k in range(number)]
    edge = 0.025 ** (1 / number)
    assert ends(torch.zeros(number), facts) == pytest.approx((0.0, 0.0, 1 - edge))
    assert ends(torch.ones(number), facts) == pytest.approx((0.0, edge, 1.0))
    for hair in (1e-16, 1e-310):  # probabilities that are 0 or 1 but for rounding, or underflow on the way
        values = torch.full((number,), hair, dtype=torch.float64)
        assert ends(values, facts) == pytest.approx((0.0, 0.0, 1 - edge), abs=1e-9)
        assert ends(1 - values, facts) == pytest.approx((0.0, edge, 1.0), abs=1e-9)
    _, low, high = ends(torch.full((number,), 0.25), facts)  # as ties score
    assert low < 0.25 < high
    for p in (low, high):  # Chernoff: number KL(1/4 || p) = log 40
        assert number * (0.25 * math.log(0.25 / p) + 0.75 * math.log(0.75 / (1 - p))) == pytest.approx(math.log(40))
    assert open_mean(torch.full((number,), 0.25), facts).interval is None
    # one fact, right in half of its templates, says next to nothing
    assert ends(torch.tensor([0.0, 1.0] * number), ["one"] * 2 * number)[1:] == pytest.approx((0, 1), abs=2e-4)


def test_bounds_hold_for_values_between_zero_and_one():
    """95 % intervals of a mean of n uniform draws hold 1/2 at least 95 % of the time; for coins too."""
    for draw in (torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)).double(),
                 (torch.rand(4000, 6, generator=torch.Generator().manual_seed(1)) < 0.5).double()):  # fmt: skip
        held = [low <= 0.5 <= high for low, high in (chernoff(float(row.mean()), 6) for row in draw)]
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
    """Every question has the same log-probs: after the means are removed all answers tie, to the last ulp or not."""
    num = 30
    drawn = torch.randn(num, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = (drawn * prior).expand(2 * num, num)
    gold = torch.arange(num).repeat(2)
    found = _likelihood([(scores, gold)], [str(k) for k in gold.tolist()], 0, 50)
    for name in ("mrr", "mcq"):
        assert found[name].value == pytest.approx(found[f"{name}_chance"].value, rel=1e-12)
        assert found[name].low < found[name].value < found[name].high
    assert found["rank"].value == 15.5
    assert found["delta_logp"].value == pytest.approx(0, abs=1e-12)
    assert found["delta_logp_p"].value > (0.9 if prior else 0.99)


def test_a_pool_of_three_has_no_four_way_choice():
    scores, gold = torch.randn(6, 3, dtype=torch.float64), torch.arange(3).repeat(2)
    facts = [str(k) for k in gold.tolist()]
    small = _likelihood([(scores, gold)], facts, 0, 10)
    assert "mcq" not in small
    assert small["mrr"].interval
    assert small["delta_logp"].interval
    big = torch.eye(5, dtype=torch.float64), torch.arange(5)
    both = _likelihood([(scores, gold), big], [*facts, *"vwxyz"], 0, 10)
    assert both["mcq"].value == 1  # of the five that have three others
    assert both["mcq"].low == pytest.approx(0.025 ** (1 / 5))


@pytest.mark.slow
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
        low, high = found["delta_logp"].interval
        assert low < found["delta_logp"].value < high
        held.append(low <= 1 <= high)
        widths.append(high - low)
    assert sum(held) / len(held) > 0.9
    assert max(widths) < 1.5  # 4 sd / root of 30 is 0.73; the names alone would make it 14


def test_the_interval_of_a_reciprocal_rank_stays_above_that_of_the_last_place():
    """One fact, three candidates, the right answer last: 1/3 is the least that there can be."""
    last = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    found = _likelihood([(last, torch.tensor([2, 0]))], ["one", "one"], 0, 10)["mrr"]
    assert found.value == pytest.approx(1 / 3)
    assert found.low == pytest.approx(1 / 3)
    assert found.high == pytest.approx(1 / 3 + 2 / 3 * 0.975)
    first = _likelihood([(-last, torch.tensor([2, 0]))], ["one", "one"], 0, 10)["mrr"]
    assert first.interval == pytest.approx((1 / 3 + 2 / 3 * 0.025, 1.0))
    middle = bounded_mean(torch.full((4,), 0.5), ["one"] * 4, least=1 / 3)
    assert 1 / 3 < middle.low < 0.5 < middle.high < 1
