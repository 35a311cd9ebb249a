"""Health of the latents: cheap statistics on detached values, every few steps, and verdicts in plain words."""

from math import isfinite, log

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentlm.losses import Kl, Mse, PairLoss, SmoothL1, SoftCrossEntropy, ViewLoss
from latentlm.objective import Terms
from latentlm.tap import resolve_depth
from latentlm.targets import Online
from latentlm.terms import Predict
from latentlm.types import Context, Report

ROWS = 1024  # that are looked at: more cost more than they tell

VERDICTS = {
    "not-finite": "there are infinite values or none at all",
    "constant-target": "the targets have no spread left, so a small loss means nothing",
    "low-rank-target": "the targets live in very few directions",
    "alike-within-target": "the targets tell images or documents apart, and hardly anything within one of them",
    "constant": "the latents have no spread left: every input gives the same",
    "low-rank": "the latents live in very few directions",
    "norm-blowup": "coordinates have grown beyond 1e4",
    "dead-head": "the guess is the same for every input",
    "not-learning": "guesses (or views) are no nearer to their own target than to a stranger's",
    "one-class": "all guesses name one and the same class",
    "uniform": "no guess names any class",
}
"""What each verdict means."""


@torch.no_grad()
def rank(latents: Float[Tensor, "m d"]) -> float:
    """RankMe of the centred latents: exp of the entropy of the normalised singular values; 1 is a line, d is isotropic.

    Centred, because an offset alone pushes the uncentred value to 1 (measured: 63.8 -> 12.2 for N(0, I) + 10, d = 64).
    """
    if not latents.isfinite().all():
        return float("nan")
    centred = (latents - latents.mean(0)).double()
    # singular values from the smaller Gram matrix: a third of the time of an SVD at width 2048, equal to 1e-4
    gram = centred.T @ centred if centred.shape[0] > centred.shape[1] else centred @ centred.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    if values.sum() <= 1e-6:
        return 0.0
    share = values / values.sum() + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


@torch.no_grad()
def pair_health(guess: Float[Tensor, "m d"], goal: Float[Tensor, "m d"]) -> dict[str, float]:
    """Of guesses and targets: ``r2`` against the batch mean, ``gap`` of centred cosines, and `set_health` of both.

    r2 = 1 - mean|guess - goal|^2 / mean|goal - mean goal|^2 separates learning from collapse; it is meaningful for
    losses that regress, and `measure` gives it for these alone. The gap is meaningful for all.
    """
    guess, goal = guess.float(), goal.float()
    spread = (goal - goal.mean(0)).square().sum(-1).mean()
    r2 = float(1 - (guess - goal).square().sum(-1).mean() / spread.clamp(min=1e-12))
    target = {f"target_{key}": value for key, value in set_health(goal).items()}
    return {"r2": r2, "gap": gap(guess, goal)} | set_health(guess) | target


@torch.no_grad()
def gap(one: Float[Tensor, "m d"], other: Float[Tensor, "m d"]) -> float:
    """cos(paired) - cos(unpaired), both centred: 0 where a row tells nothing of its own partner."""
    one, other = one.float() - one.float().mean(0), other.float() - other.float().mean(0)
    stranger = other.roll(len(other) // 2, 0)  # not the neighbour, who may be alike
    cosines = [F.cosine_similarity(one, each, dim=-1).mean() for each in (other, stranger)]
    return float(cosines[0] - cosines[1])


@torch.no_grad()
def set_health(latents: Float[Tensor, "*g m d"]) -> dict[str, float]:
    """Of a set: deviation ``std`` of its coordinates, mean ``norm``, ``rank``; means over the groups."""
    groups = latents.float().reshape(-1, *latents.shape[-2:])
    return {
        "std": float(groups.std(1, correction=0).mean()),
        "norm": float(groups.norm(dim=-1).mean()),
        "rank": sum(rank(group) for group in groups) / len(groups),
    }


@torch.no_grad()
def alike_within(latents: Float[Tensor, "m d"], anchor: Int[Tensor, "m"]) -> float:
    """Share of the spread that lies between anchors: 1 where all latents of an anchor are one, 0 by chance.

        1 - (sum |z - mean of its anchor|^2 / (m - anchors)) / (sum |z - mean|^2 / (m - 1))

    An objective whose targets share what is easiest to tell of a whole image, such as its brightness, ends near 1.
    """
    own, counts = anchor.unique(return_inverse=True, return_counts=True)[1:]
    spread = latents.float() - latents.float().mean(0)
    means = spread.new_zeros(len(counts), spread.shape[1]).index_add(0, own, spread) / counts[:, None]
    within = (spread - means[own]).square().sum() / (len(own) - len(counts))
    return float(1 - within / (spread.square().sum() / (len(own) - 1)).clamp(min=1e-12))


@torch.no_grad()
def class_health(guess: Float[Tensor, "m k"], temperature: float) -> dict[str, float]:
    """Of guesses that are logits: ``classes``, how many are used at all, and ``entropy`` of each as a share of log k.

    classes = exp H(mean p) and entropy = mean H(p) / log k for p = softmax(guess / temperature). Logits can go on
    differing from input to input when all of them name one class.
    """
    share = (guess.double() / temperature).softmax(-1)
    used, own = (-torch.special.xlogy(p, p).sum(-1) for p in (share.mean(0), share))
    return {"classes": float(used.exp()), "entropy": float(own.mean() / max(log(guess.shape[-1]), 1e-12))}


def verdicts(values: dict[str, float], dim: int) -> list[str]:
    """Names of the failures, see `VERDICTS`, that `pair_health`, `set_health` and, for logits, `class_health` show."""
    if not all(isfinite(value) for value in values.values()):
        return ["not-finite"]
    found = []
    of, tail = ("target_", "-target") if "target_norm" in values else ("", "")
    flat = _flat(values[f"{of}std"], values[f"{of}norm"], dim)
    if flat:
        found.append(f"constant{tail}")
    elif values[f"{of}rank"] < 2.0 and dim > 2:
        found.append(f"low-rank{tail}")
    if values.get(f"{of}alike", 0.0) > 0.95 and not flat:
        found.append(f"alike-within{tail}")
    if values[f"{of}norm"] > 1e4 * dim**0.5:
        found.append("norm-blowup")
    dead = bool(of) and not flat and _flat(values["std"], values["norm"], dim)
    if dead:
        found.append("dead-head")
    if values.get("gap", 1.0) < 0.01 and not flat and not dead:
        found.append("not-learning")
    if values.get("classes", dim) < 1.05:
        found.append("one-class")
    if values.get("entropy", 0.0) > 0.999:
        found.append("uniform")
    return found


def _flat(std: float, norm: float, dim: int) -> bool:
    return std < 1e-3 * max(norm, 1e-12) / dim**0.5 or norm < 1e-6


def measure(terms: Terms, context: Context) -> dict[str, float | str]:
    """Health and ``verdict`` of every term with latents, keyed ``monitor/<term>/<name>``.

    Beside what `pair_health`, `set_health` and `class_health` give, ``nothing`` is the loss of a guess that is the mean
    of the targets whatever the input. Where the targets themselves become alike it falls with the loss.
    ``target_alike`` is `alike_within` of the targets, where an anchor has several. ``r2`` is there where the loss
    regresses: one that compares directions leaves the length of a guess free.
    """
    found: dict[str, float | str] = {}
    for name, term in terms.terms.items():
        if isinstance(term, Predict) and term.through != "none":
            continue
        with torch.no_grad():
            seen = _pairs(terms, name, context) if isinstance(term, Predict) else _set(terms, name, context)
        if seen is not None:
            health, dim = seen
            verdict = ", ".join(verdicts(health, dim)) or "ok"
            found |= {f"monitor/{name}/{key}": value for key, value in (health | {"verdict": verdict}).items()}
    return found


def _pairs(terms: Terms, name: str, context: Context) -> tuple[dict[str, float], int] | None:
    term = terms.terms[name]
    assert isinstance(term, Predict)
    guess, goal = terms.pairs(name, context)
    if guess.shape[0] < 4:
        return None
    anchor = term.mask(context.view).nonzero()[:ROWS, 0]
    guess, goal = guess[:ROWS], goal[:ROWS]
    health = pair_health(guess, goal)
    if not isinstance(term.loss, Mse | SmoothL1):
        del health["r2"]
    if 1 < len(anchor.unique()) < len(anchor) and not term.shuffle:
        health["target_alike"] = alike_within(goal, anchor)
    if isinstance(term.loss, PairLoss):  # row losses talk to other ranks, which may have nothing to measure
        health["nothing"] = float(term.loss(goal.mean(0).expand_as(goal), goal).mean())
    if isinstance(term.loss, Kl | SoftCrossEntropy):
        health |= class_health(guess, term.loss.temperature)
    return health, goal.shape[-1]


def _set(terms: Terms, name: str, context: Context) -> tuple[dict[str, float], int] | None:
    samples = terms.samples(name, context)[..., :ROWS, :]
    if samples.shape[-2] < 4:
        return None
    health = set_health(samples)
    if isinstance(terms.terms[name].loss, ViewLoss):
        health["gap"] = gap(samples[0], samples[1])
    return health, samples.shape[-1]


class GradientProbe:
    """Measures, during the next backward, each term's gradient at its source state against all the rest there.

        ratio = |w g_term| / |g_all - w g_term|,   cosine = cos(w g_term, g_all - w g_term)

    g_term is found ahead of the backward through the heads only; g_all arrives at the state in the backward, scaled by
    whatever the trainer does to the loss, and so is the scalar `loss` of the terms, which gives that factor.
    """

    def __init__(self):
        self.found: dict[str, float] = {}
        self.looked: int | None = None  # optimizer step of the last look
        self._factor: Tensor | None = None

    def watch(
        self, terms: Terms, context: Context, reports: dict[str, Report], loss: Tensor, scales: dict[str, Tensor]
    ):
        """Hook the states that `reports` came from. `scales` turn a term's sum into its mean, as in `loss`."""
        if not loss.requires_grad:
            return

        def remember(grad: Tensor) -> None:
            self._factor = grad.detach()

        terms.waiting = True
        loss.register_hook(remember)
        parts = []
        for name, report in reports.items():
            term = terms.terms[name]
            if term.source.of != "network":
                continue  # a teacher's state has no gradient
            leaky = isinstance(term, Predict) and isinstance(term.target, Online) and not term.target.stop_grad
            depth = resolve_depth(term.source.depths[-1], context.view.num_layers)
            state = context.view.tapped.get(depth, context.view.states[depth])
            if leaky or not state.requires_grad or not report.sum.requires_grad:
                continue  # a target with gradient reaches the state through the network as well
            (grad,) = torch.autograd.grad(report.sum, state, retain_graph=True, allow_unused=True)
            if grad is not None:
                parts.append((state, self._reader(terms, name, grad.detach().float() * scales[name], report.weight)))
        for state, reader in parts:  # only now: a gradient found above would set off the hooks of the terms before it
            state.register_hook(reader)

    def _reader(self, terms: Terms, name: str, part: Tensor, weight: float | Tensor):
        def read(grad: Tensor) -> None:
            mine = part.flatten() * (1.0 if self._factor is None else self._factor)
            rest = grad.detach().flatten().float() - weight * mine
            own, other = float(mine.norm()), float(rest.norm())
            terms.measured[name] = own, other if other > 1e-6 * weight * own else 0.0  # below is the rounding of rest
            self.found[f"monitor/{name}/grad_ratio"] = float(weight) * own / max(other, 1e-20)
            self.found[f"monitor/{name}/grad_cosine"] = float(F.cosine_similarity(mine, rest, dim=0))

        return read
