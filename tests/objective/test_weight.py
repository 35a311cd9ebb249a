"""A weight over training: schedules by hand, shares of training, and what is refused."""

import itertools

import pytest

from latentlm.config.schema import ConfigError, dump, parse
from latentlm.objective.weight import Weight, schedule


def on(weight: Weight, total: int | None = None, steps: int = 10) -> list[float]:
    return [weight.on(step, total) for step in range(steps)]


def test_start_and_ramp_by_hand():
    assert on(Weight(2.0, start=3, ramp=4), steps=9) == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    assert on(Weight(2.0, start=2), steps=4) == [0, 0, 1, 1]
    assert on(Weight(2.0), steps=2) == [1, 1]
    assert schedule(0.5) == Weight(0.5)


@pytest.mark.parametrize(
    "weight",
    [
        Weight(start=1, ramp=2, hold=2, decay=4),
        Weight(start=1, ramp=2, stop=9, decay=4),
        Weight(start=0.1, ramp="20%", hold="1/5", decay=0.4),
        Weight(start="10%", ramp=2, stop="9/10", decay=0.4),
    ],
)
def test_hold_and_stop_steps_and_shares_say_the_same(weight):
    assert on(weight, total=10) == [0, 0.5, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    assert weight.span(10) == (1, 9)


def test_decay_alone_ends_with_training():
    assert on(Weight(decay=4), total=6, steps=8) == [1, 1, 1, 0.75, 0.5, 0.25, 0, 0]
    assert on(Weight(hold=0, decay=4), steps=6) == [1, 0.75, 0.5, 0.25, 0, 0]  # needs no number of steps in all
    assert on(Weight(ramp=4, decay=4, stop=6), steps=7) == [0.25, 0.5, 0.75, 0.75, 0.5, 0.25, 0]  # never fully on


def test_a_share_is_never_shorter_than_it_says_and_never_starts_late():
    for total, tenth in itertools.product(range(1, 60), range(1, 10)):
        early, late = Weight(stop=tenth / 10), Weight(start=tenth / 10)
        assert early.span(total)[1] == -(-tenth * total // 10) >= 1
        assert late.span(total)[0] == tenth * total // 10 < total
        assert Weight(stop=1.0).on(total - 1, total) == 1


def test_a_schedule_is_scaled_and_written_whole():
    weight = Weight(2.0, start=0.25, ramp=4, stop="3/4", decay=1.0, grad_ratio=0.4)
    assert weight.times(0.5) == Weight(1.0, start=0.25, ramp=4, stop="3/4", decay=1.0, grad_ratio=0.2)
    assert parse(Weight, dump(weight)) == weight


def test_what_cannot_be_is_refused():
    def refused(message, **given):
        with pytest.raises(ConfigError, match=message):
            parse(Weight, given, "weight")

    refused("start -1; set it to 0 steps or more", start=-1)
    for wrong in (1.5, -0.1, "half", "1/0", "60 %%", "120%", "200"):
        refused("stop .* is not a share of training; use 0.5, 1/2 or 50%, or a whole number of steps", stop=wrong)
    refused("hold and stop both say when it ends", hold=3, stop=9)
    refused("start 5 is not before stop 5, so the term is never on", start=5, stop=5)
    refused("start 0.5 is not before stop 1/2", start=0.5, stop="1/2")
    refused("start 0 is not before stop 0", stop=0)
    refused("start 100% is not before the end of training", start="100%")
    refused("must be above 0", grad_ratio=-0.1)
    with pytest.raises(ValueError, match=r"stop 0\.5 needs the number of steps in all; use LatentTrainer, set"):
        Weight(stop=0.5).on(0)
    with pytest.raises(ValueError, match="start 5 is step 5, and it ends at step 2, so the term is never on"):
        Weight(start=5, stop=0.5).on(0, 4)
