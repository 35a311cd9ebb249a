"""Health of the latents: cheap statistics on detached values, every few steps, and verdicts in plain words."""

from math import log

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from latentlm.losses import Cosine, Kl, Mse, PairLoss, SmoothL1, SoftCrossEntropy, ViewLoss
from latentlm.monitor.verdicts import verdicts
from latentlm.objective.predict import PredictTerm
from latentlm.objective.regularize import RegularizeTerm
from latentlm.objective.terms_module import Terms
from latentlm.types import StepContext

ROWS = 1024  # that are looked at: more cost more than they tell
OTHERS = 64  # targets among which a guess has to find its own
ASKED = 256  # guesses that are asked, which tells enough
FEW = 8  # pairs of a batch in which finding one's own says little


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
    """Compare guesses with targets: ``r2``, `cosine_margin` and `set_health` of both.

    r2 = 1 - mean|guess - goal|^2 / mean|goal - mean goal|^2 separates learning from collapse; it is meaningful for
    losses that regress, and `measure` gives it for these alone. The gap is meaningful for all.
    """
    guess, goal = guess.float(), goal.float()
    spread = (goal - goal.mean(0)).square().sum(-1).mean()
    r2 = float(1 - (guess - goal).square().sum(-1).mean() / spread.clamp(min=1e-12))
    target = {f"target_{key}": value for key, value in set_health(goal).items()}
    return {"r2": r2} | cosine_margin(guess, goal) | set_health(guess) | target


@torch.no_grad()
def cosine_margin(one: Float[Tensor, "m d"], other: Float[Tensor, "m d"]) -> dict[str, float]:
    """cos(paired) - cos(unpaired), both centred: 0 where a row tells nothing of its own partner.

    ``cosine_margin`` is its mean over the rows, ``cosine_margin_stderr`` the standard error of that: of few pairs, such
    as the paragraphs of a small batch, a margin says little.
    """
    one, other = one.float() - one.float().mean(0), other.float() - other.float().mean(0)
    stranger = other.roll(len(other) // 2, 0)  # not the neighbour, who may be alike
    paired, unpaired = (F.cosine_similarity(one, each, dim=-1) for each in (other, stranger))
    margin = paired - unpaired
    error = margin.std() / len(margin) ** 0.5
    return {"cosine_margin": float(margin.mean()), "cosine_margin_stderr": float(error)}


@torch.no_grad()
def hit_rate(guess: Float[Tensor, "m d"], goal: Float[Tensor, "m d"]) -> float:
    """Share of the guesses that are nearer to their own target than to 64 others (all, where there are fewer).

        mean_i [ cos(g_i, t_i) > max_k cos(g_i, t_j(k)) ],   j(k): 64 rows spread over the batch

    A target that equals one's own is not another one. Both centred, so that what all targets share does not count;
    1 / 65 by chance.
    """
    guess, goal = (F.normalize(each.float() - each.float().mean(0), dim=-1) for each in (guess, goal))
    num = len(goal)
    steps = torch.linspace(0, num, min(OTHERS, num - 1) + 2, device=goal.device)[1:-1].round().long()
    others = (torch.arange(num, device=goal.device)[:, None] + steps) % num
    own = (guess * goal).sum(-1, keepdim=True)
    same = (goal @ goal.T).gather(1, others) > 1 - 1e-5
    cosines = (guess @ goal.T).gather(1, others).masked_fill(same, -torch.inf)
    return float((own > cosines).all(1).float().mean())


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
def constant_guess(loss: PairLoss, goal: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """The guess that does best without the input: the mean of the targets, as that loss reads them.

        mse: mean t   cosine: mean t / |t|   soft_cross_entropy, kl: T log mean softmax(t / T_target)

    No constant has a smaller loss (smooth_l1, which takes the mean as well, apart). Of logits the mean would be far
    worse than uniform: sharp ones that differ have a mean that is sharp as well.
    """
    goal = goal.float()
    if isinstance(loss, Cosine):
        goal = F.normalize(goal, dim=-1)
    if not isinstance(loss, SoftCrossEntropy | Kl):
        return goal.mean(0).expand_as(goal)
    sharpened = goal / (loss.target_temperature if isinstance(loss, SoftCrossEntropy) else loss.temperature)
    share = sharpened.log_softmax(-1).logsumexp(0) - log(len(goal))
    return (loss.temperature * share).expand_as(goal)


@torch.no_grad()
def class_health(guess: Float[Tensor, "m k"], temperature: float) -> dict[str, float]:
    """Of guesses that are logits: ``classes``, how many are used at all, and ``entropy`` of each as a share of log k.

    classes = exp H(mean p) and entropy = mean H(p) / log k for p = softmax(guess / temperature). Logits can go on
    differing from input to input when all of them name one class.
    """
    share = (guess.double() / temperature).softmax(-1)
    used, own = (-torch.special.xlogy(p, p).sum(-1) for p in (share.mean(0), share))
    return {"classes": float(used.exp()), "entropy": float(own.mean() / max(log(guess.shape[-1]), 1e-12))}


def measure(terms: Terms, context: StepContext) -> dict[str, float | str]:
    """Health and ``verdict`` of every term with latents, keyed ``monitor/<term>/<name>``.

    Beside what `pair_health`, `set_health` and `class_health` give, ``baseline_loss`` is the loss of `constant_guess`.
    Where the targets themselves become equal it falls with the loss. ``target_between_example_share`` is `alike_within`
    of the targets, where an anchor has several. ``r2`` is there where the loss regresses: one that compares directions
    leaves the length of a guess free. ``hit_rate`` is there where a guess is a vector of an anchor's own, and
    ``hit_rate_shuffled`` is that of the same guesses with the targets of others: what chance gives.
    """
    found: dict[str, float | str] = {}
    running = terms.weights.running(context.step, context.total_steps)
    for name, term in terms.items():
        if name not in running or (isinstance(term, PredictTerm) and term.spec.decode_with != "none"):
            continue
        with torch.no_grad():
            seen = _pairs(term, context) if isinstance(term, PredictTerm) else _set(term, context)
        if seen is not None:
            health, dim = seen
            verdict = ", ".join(verdicts(health, dim)) or "ok"
            found |= {f"monitor/{name}/{key}": value for key, value in (health | {"verdict": verdict}).items()}
    return found


def _pairs(term: PredictTerm, context: StepContext) -> tuple[dict[str, float], int] | None:
    spec, context = term.spec, context.for_term(term.name)
    guess, goal = term.pairs(context)
    if guess.shape[0] < 4:
        return None
    anchor = spec.mask(context.view).nonzero()[:ROWS, 0]
    guess, goal = guess[:ROWS], goal[:ROWS]
    health = pair_health(guess, goal)
    if not isinstance(spec.loss, Mse | SmoothL1):
        del health["r2"]
    if 1 < len(anchor.unique()) < len(anchor) and not spec.shuffle:
        health["target_between_example_share"] = alike_within(goal, anchor)
    if len(goal) > FEW and len(anchor.unique()) == len(anchor):
        some, own = guess[:ASKED], goal[:ASKED]
        health["hit_rate"] = hit_rate(some, own)
        health["hit_rate_shuffled"] = hit_rate(some, own.roll(len(own) // 2, 0))
    if isinstance(spec.loss, PairLoss):  # row losses talk to other ranks, which may have nothing to measure
        health["baseline_loss"] = float(spec.loss(constant_guess(spec.loss, goal), goal).mean())
    if isinstance(spec.loss, Kl | SoftCrossEntropy):
        health |= class_health(guess, spec.loss.temperature)
    return health, goal.shape[-1]


def _set(term: RegularizeTerm, context: StepContext) -> tuple[dict[str, float], int] | None:
    samples = term.gather(context)[..., :ROWS, :]
    if samples.shape[-2] < 4:
        return None
    health = set_health(samples)
    if isinstance(term.spec.loss, ViewLoss):
        health |= cosine_margin(samples[0], samples[1])
    return health, samples.shape[-1]
