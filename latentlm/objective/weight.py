"""A term's weight over training: when it comes on, how long it stays, and when it is gone."""

from dataclasses import dataclass, replace
from math import ceil, floor, inf

Moment = int | float | str
"""A time in training: a whole number (``200``) counts optimizer steps, everything else is a share of training
(``0.5``, ``1/2``, ``50%``; ``1.0`` is the end, ``1`` the second step)."""

_TIMES = ("start", "ramp", "hold", "decay", "stop")
_EXACT = 1e-9  # 0.1 * 30 is 3 and a little


@dataclass(frozen=True)
class Weight:
    """A term's multiplier over training: off, up, on, down, off.

        weight(s) = value * min(1, (s - start + 1) / ramp, (stop - s) / decay)   for start <= s < stop,   else 0

    Times are optimizer steps or shares of training, and may be mixed: ``200`` is a number of steps, ``0.5``, ``1/2``
    and ``50%`` are shares. A share needs the number of steps in all, which trainers know; a loop of one's own sets
    ``latent_state(model).steps.total``. While a term is off it is not run, and neither is a teacher that only such
    terms read; the copies of a teacher stay in memory.

    Checked:   tests/objective/test_weight.py - schedules by hand, shares equal steps; tests/attach/test_terms_off.py -
               what is off runs nothing, two ranks, resumed.

    Args:
        value: the multiplier once it is fully on.
        start: when the term comes on.
        ramp: how long it rises linearly from 0.
        hold: how long it is fully on after that; it then decays and is gone.
        decay: how long it falls linearly to 0, before `stop`, after `hold`, or without either at the end of training.
        stop: when the term is gone, in place of `hold`; without either it stays.
        grad_ratio: keep the gradient of the term at its source state this many times as large as that of everything
            else there, once it is fully on, also when the term is nearly solved. `value` is the first guess, replaced
            at the first measurement (every `monitor_every` steps, also before `start`: such a term runs from the
            beginning); it stays where nothing below the source is trained.
    """

    value: float = 1.0
    start: Moment = 0
    ramp: Moment = 0
    hold: Moment | None = None
    decay: Moment = 0
    stop: Moment | None = None
    grad_ratio: float | None = None

    def __post_init__(self):
        if not 0 <= self.value < inf:
            raise ValueError(f"weight: {self.value}; set it to 0 or more, and finite")
        for key in _TIMES:
            self._read(key)
        if self.hold is not None and self.stop is not None:
            raise ValueError("weight: hold and stop both say when it ends; leave one of them out")
        start, stop = self._read("start"), self._read("stop")
        both = (start[1] is None) == (stop[1] is None)  # steps or shares; where they are mixed `span` says it
        if start[1] == 1 or (self.stop is not None and (stop == (0, None) or (both and start >= stop))):
            end = "the end of training" if self.stop is None else f"stop {self.stop}"
            raise ValueError(f"weight: start {self.start} is not before {end}, so the term is never on; start earlier")
        if self.grad_ratio is not None and (self.grad_ratio <= 0 or self.value <= 0):
            raise ValueError("weight: grad_ratio and the value it starts from must be above 0")

    def on(self, step: int, total: int | None = None) -> float:
        """How far the term is on at an optimizer step, 0..1; `total` is the number of steps, where it is known."""
        start, stop = self.span(total)
        if step < start or (stop is not None and step >= stop):
            return 0.0
        ramp, decay = self._steps("ramp", total), self._steps("decay", total)
        up = (step - start + 1) / ramp if ramp else 1.0
        down = (stop - step) / decay if decay and stop is not None else 1.0
        return min(1.0, up, down)

    def span(self, total: int | None = None) -> tuple[int, int | None]:
        """The step at which the term comes on, and the one from which it is gone, if there is one."""
        start = self._steps("start", total)
        if self.stop is not None:
            stop = self._steps("stop", total)
        elif self.hold is not None:
            stop = start + sum(self._steps(key, total) for key in ("ramp", "hold", "decay"))
        else:
            stop = self._total("decay", total) if self._read("decay") != (0, None) else None
        if stop is not None and start >= stop:
            raise ValueError(
                f"weight: start {self.start} is step {start}, and it ends at step {stop}, so the term is never on; "
                "start earlier, or train longer"
            )
        return start, stop

    def times(self, share: float) -> "Weight":
        """The same schedule, scaled."""
        ratio = None if self.grad_ratio is None else self.grad_ratio * share
        return replace(self, value=self.value * share, grad_ratio=ratio)

    def _steps(self, key: str, total: int | None) -> int:
        """A time as a number of steps: never shorter than its share, and never a later start."""
        steps, share = self._read(key)
        if share is None:
            return steps
        exact = share * self._total(key, total)
        return floor(exact + _EXACT) if key == "start" else ceil(exact - _EXACT)

    def _total(self, key: str, total: int | None) -> int:
        if total is None:
            raise ValueError(
                f"weight: {key} {getattr(self, key)} needs the number of steps in all; use LatentTrainer, set "
                "latent_state(model).steps.total, or give whole numbers of steps (with hold or stop)"
            )
        return total

    def _read(self, key: str) -> tuple[int, float | None]:
        """A time as steps, or as a share."""
        value = getattr(self, key)
        if value is None:
            return 0, None
        if isinstance(value, int):
            if value < 0:
                raise ValueError(f"weight: {key} {value}; set it to 0 steps or more, or to a share of training")
            return value, None
        share = value if isinstance(value, float) else _share(value)
        if share is None or not 0 <= share <= 1:
            raise ValueError(
                f"weight: {key} {value!r} is not a share of training; use 0.5, 1/2 or 50%, or a whole number of steps"
            )
        return 0, share or None


def schedule(weight: float | Weight) -> Weight:
    """A weight as a schedule."""
    return weight if isinstance(weight, Weight) else Weight(weight)


def _share(value: str) -> float | None:
    number, percent, rest = value.partition("%")
    try:
        if percent:
            return None if rest else float(number) / 100
        numerator, slash, denominator = value.partition("/")
        return float(numerator) / float(denominator) if slash else float(value)
    except (ValueError, ZeroDivisionError):
        return None
