"""Health of the latents: cheap statistics on detached values, every few steps, and verdicts in plain words."""

from math import isfinite, log

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentlm.losses import BalancedCrossEntropy, Kl, SoftCrossEntropy
from latentlm.objective import Terms
from latentlm.tap import resolve_depth
from latentlm.targets import Online
from latentlm.terms import Predict
from latentlm.types import Context, Report


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
    """Of guesses and targets: ``r2`` against the batch mean, ``gap`` of centred cosines, ``target_std``, ranks.

    r2 = 1 - mean|guess - goal|^2 / mean|goal - mean goal|^2 separates learning from collapse; it is meaningful for
    losses that regress. gap = cos(paired) - cos(unpaired), both centred, is meaningful for all.
    """
    guess, goal = guess.float(), goal.float()
    centred, aim = guess - guess.mean(0), goal - goal.mean(0)
    spread = aim.square().sum(-1).mean()
    paired = F.cosine_similarity(centred, aim, dim=-1).mean()
    stranger = aim.roll(len(aim) // 2, 0)  # not the neighbour, who may be alike
    unpaired = F.cosine_similarity(centred, stranger, dim=-1).mean()
    return {
        "r2": float(1 - (guess - goal).square().sum(-1).mean() / spread.clamp(min=1e-12)),
        "gap": float(paired - unpaired),
        "target_std": float(goal.std(0, correction=0).mean()),
        "target_norm": float(goal.norm(dim=-1).mean()),
        "rank": rank(guess),
        "target_rank": rank(goal),
    }


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
    """Named failures that `pair_health` and, for logits, `class_health` show.

    not-finite: there are infinite values or none at all.
    constant-target: the targets have no spread left, so a small loss means nothing.
    low-rank-target: they live in very few directions.
    norm-blowup: their coordinates have grown beyond 1e4.
    not-learning: guesses are no nearer to their own target than to a stranger's.
    one-class: all guesses name one and the same class.
    uniform: no guess names any class.
    """
    if not all(isfinite(value) for value in values.values()):
        return ["not-finite"]
    found = []
    scale = max(values["target_norm"], 1e-12) / dim**0.5
    if values["target_std"] < 1e-3 * scale or values["target_norm"] < 1e-6:
        found.append("constant-target")
    elif values["target_rank"] < 2.0 and dim > 2:
        found.append("low-rank-target")
    if values["target_norm"] > 1e4 * dim**0.5:
        found.append("norm-blowup")
    if values["gap"] < 0.01 and "constant-target" not in found:
        found.append("not-learning")
    if values.get("classes", dim) < 1.05:
        found.append("one-class")
    if values.get("entropy", 0.0) > 0.999:
        found.append("uniform")
    return found


def measure(terms: Terms, context: Context) -> dict[str, float | str]:
    """`pair_health` and ``verdict`` of every latent `Predict` term, keyed ``monitor/<term>/<name>``."""
    found: dict[str, float | str] = {}
    for name, term in terms.terms.items():
        if not isinstance(term, Predict) or term.through != "none":
            continue
        with torch.no_grad():
            guess, goal = terms.pairs(name, context)
        if guess.shape[0] >= 4:
            guess, goal = guess[:1024], goal[:1024]  # more rows cost more than they tell
            health = pair_health(guess, goal)
            if isinstance(term.loss, Kl | SoftCrossEntropy | BalancedCrossEntropy):
                health |= class_health(guess, term.loss.temperature)
            verdict = ", ".join(verdicts(health, goal.shape[-1])) or "ok"
            found |= {f"monitor/{name}/{key}": value for key, value in (health | {"verdict": verdict}).items()}
    return found


class GradientProbe:
    """Measures, during the next backward, each term's gradient at its source state against all the rest there.

        ratio = |w g_term| / |g_all - w g_term|,   cosine = cos(w g_term, g_all - w g_term)

    g_term is found ahead of the backward through the heads only; g_all arrives at the state in the backward, scaled by
    whatever the trainer does to the loss, and so is the scalar `loss` of the terms, which gives that factor.
    """

    def __init__(self):
        self.found: dict[str, float] = {}
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
        for name, report in reports.items():
            term = terms.terms[name]
            leaky = isinstance(term, Predict) and isinstance(term.target, Online) and not term.target.stop_grad
            depth = resolve_depth(term.source.depths[-1], context.view.num_layers)
            state = context.view.tapped.get(depth, context.view.states[depth])
            if leaky or not state.requires_grad or not report.sum.requires_grad:
                continue  # a target with gradient reaches the state through the network as well
            (grad,) = torch.autograd.grad(report.sum, state, retain_graph=True, allow_unused=True)
            if grad is not None:
                state.register_hook(self._reader(terms, name, grad.detach().float() * scales[name], report.weight))

    def _reader(self, terms: Terms, name: str, part: Tensor, weight: float | Tensor):
        def read(grad: Tensor) -> None:
            mine = part.flatten() * (1.0 if self._factor is None else self._factor)
            rest = grad.detach().flatten().float() - weight * mine
            own, other = float(mine.norm()), float(rest.norm())
            terms.measured[name] = own, other if other > 1e-6 * weight * own else 0.0  # below is the rounding of rest
            self.found[f"monitor/{name}/grad_ratio"] = float(weight) * own / max(other, 1e-20)
            self.found[f"monitor/{name}/grad_cosine"] = float(F.cosine_similarity(mine, rest, dim=0))

        return read
