"""Section about facts stated from both sides: role consistency, unification, bilinear maps, update coupling.

The facts are a run's own (`dataset_facts.py`), or countries and capitals, which most pretrained models know.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latentlm_evals.coherence.measures.bilinear import FOLDS, bilinear_composition, bilinear_inverse
from latentlm_evals.coherence.measures.binding import consistency_scores, fact_unification, role_ranks, update_coupling
from latentlm_evals.coherence.stimuli import countries
from latentlm_evals.models.interventions import Lens
from latentlm_evals.probes.context_probes import caution
from latentlm_evals.probes.pca import Space
from latentlm_evals.statistics.arrays import Array, Booleans, Labels, is_flat

STEPS, RISE, STEP_SIZE = 40, 2.0, 2e-4  # an update ends after so many steps or nats; a step is this share of the norm
LEAST = 2 * FOLDS  # facts


@dataclass(frozen=True)
class Pairs:
    """Facts of one kind, a and b, and the prompts that ask for b and for a.

    Attributes:
        name: of the kind.
        a, b: the two sides of every fact.
        forward: prompt with ``{}`` for a, to be followed by b.
        reverse: prompt with ``{}`` for b, to be followed by a.
        c: what a leads to by another relation, for the composition b -> a -> c; empty where there is none.
        third: words with ``{}`` for c.
        clusters: number of the group, e.g. a family, that each fact belongs to, drawn whole for intervals.
    """

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    forward: str
    reverse: str
    c: tuple[str, ...] = ()
    third: str = ""
    clusters: tuple[int, ...] = ()

    def groups(self) -> Labels:
        """`clusters`; each fact by itself where there are none."""
        return np.array(self.clusters) if self.clusters else np.arange(len(self.a))

    def shared(self) -> Booleans:
        """``[n n]``, true where two different facts have a thing in common."""
        a, b = np.array(self.a), np.array(self.b)
        same = [x[:, None] == y for x in (a, b) for y in (a, b)]
        return np.any(same, axis=0) & ~np.eye(len(a), dtype=bool)

    def texts(self) -> list[str]:
        """All that is read, answers included."""
        ahead = [f"{self.forward.replace('{}', a)} {b}" for a, b in zip(self.a, self.b, strict=True)]
        back = [f"{self.reverse.replace('{}', b)} {a}" for a, b in zip(self.a, self.b, strict=True)]
        return ahead + back + [self.third.replace("{}", c) for c in self.c]


def world_pairs(limit: int) -> list[Pairs]:
    """Countries and capitals."""
    rows = countries()[:limit]
    a, b, c = (tuple(row[side] for row in rows) for side in range(3))
    return [Pairs("capital", a, b, "The capital of {} is", "{} is the capital of", c, "People say that the {}")]


def pair_states(lens: Lens, pairs: Pairs, depths: Sequence[int]) -> dict[str, Array]:
    """States ``[n l d]``: a and b where they are known (`subject`) and where they are asked (`object`), and c."""
    found = {}
    for prompt, values, known, asked in (
        (pairs.forward, pairs.a, "a_subject", "b_object"),
        (pairs.reverse, pairs.b, "b_subject", "a_object"),
        (pairs.third, pairs.c, "c_subject", None),
    ):
        if values:
            texts, start = [prompt.replace("{}", value) for value in values], prompt.index("{}")
            found[known] = lens.states(texts, depths, [(start, start + len(value)) for value in values])
            if asked is not None:
                found[asked] = lens.states(texts, depths, [(0, len(text)) for text in texts])
    return found


def pair_scores(states: dict[str, Array], pairs: Pairs, components: int, seed: int) -> dict[str, float]:
    """Role consistency (both sides), unification, inverse and composition, from states ``[n d]`` of one depth."""
    num = len(pairs.a)
    # maps between n entities are fitted on four fifths of them
    space = Space.fit(np.concatenate(list(states.values())), min(components, num // 2))
    if space.is_collapsed:
        nan = caution("collapsed", "all facts have the same state: nothing is bound to anything")
        names = ("rc_id", "rc_lin", "u", "u_mrr", "bilinear", "bilinear_inverse")
        return dict.fromkeys([*names, *(["composition"] if pairs.c else [])], nan)
    z = {name: space(state) for name, state in states.items()}
    roles = [role_ranks(z[f"{side}_object"], z[f"{side}_subject"], seed) for side in ("a", "b")]
    scores = consistency_scores({name: (roles[0][name] + roles[1][name]) / 2 for name in roles[0]}, pairs.groups())
    scores |= fact_unification(z["b_object"], z["a_object"], pairs.shared(), pairs.groups())
    # never both sides of a map from one text: what is asked has seen what is known, and even fresh weights copy it over
    scores |= bilinear_inverse(z["a_subject"], z["b_subject"], z["b_object"], z["a_object"], seed)
    if "c_subject" in z:
        scores |= bilinear_composition(z["b_subject"], z["a_subject"], z["c_subject"], seed)
    return scores


def num_updates(pairs: Pairs, updates: int) -> int:
    """How many facts are taught a wrong partner."""
    return min(updates, len(pairs.a) // 4)


def coupling_scores(lens: Lens, pairs: Pairs, updates: int) -> dict[str, float]:
    """Teach a wrong partner, a_i with b_j, from the forward side only; does the reverse question learn it too?

    The update is plain gradient descent whose step is at most a fixed share of the weights' norm, so that models of all
    sizes take alike steps; it ends when the fact has become `RISE` nats likelier. Unrelated: a_i as the answer about
    others.
    """
    sides = ((pairs.forward, pairs.a), (pairs.reverse, pairs.b))
    questions = [[frame.replace("{}", value) for value in values] for frame, values in sides]
    if is_flat(*(lens.next_token(prompts).double().numpy() for prompts in questions)):
        nan = caution("collapsed", "what follows a question does not depend on what it is about: there is no fact")
        return dict.fromkeys(("t", "t_unrelated", "delta_forward"), nan)
    own = lens.copy()
    weights = [weight for weight in own.model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    length = torch.stack([weight.norm() for weight in before]).norm()
    num, count = len(pairs.a), num_updates(pairs, updates)
    changes: dict[str, list[float]] = {"forward": [], "reverse": [], "unrelated": []}
    for i in (k * num // count for k in range(count)):
        new = (i + num // 2) % num
        others = [(new + step) % num for step in (1, 2, 3) if (new + step) % num != i]
        ask = {
            "forward": ([pairs.forward.replace("{}", pairs.a[i])], [pairs.b[new]]),
            "reverse": ([pairs.reverse.replace("{}", pairs.b[new])], [pairs.a[i]]),
            "unrelated": ([pairs.reverse.replace("{}", pairs.b[o]) for o in others], [pairs.a[i]] * len(others)),
        }
        with torch.no_grad():
            start = {name: float(own.log_prob(*question).mean()) for name, question in ask.items()}
        for _ in range(STEPS):
            score = own.log_prob(*ask["forward"]).sum()
            missing = RISE - float(score.detach()) + start["forward"]
            if missing <= 0:
                break
            gradient = torch.autograd.grad(score, weights, allow_unused=True)
            _step(weights, gradient, length, missing)
        with torch.no_grad():
            for name, question in ask.items():
                changes[name].append(float(own.log_prob(*question).mean()) - start[name])
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    return update_coupling(*(np.array(changes[name]) for name in ("forward", "reverse", "unrelated")))


def _step(
    weights: Sequence[torch.Tensor], gradient: Sequence[torch.Tensor | None], length: torch.Tensor, missing: float
) -> None:
    size = torch.stack([g.norm() for g in gradient if g is not None]).norm() + 1e-12
    # no longer than the slope says is needed: a pretrained model would leap past the end in one full step
    step = float(torch.minimum(STEP_SIZE * length, (missing + 0.1) / size) / size)
    with torch.no_grad():
        for weight, g in zip(weights, gradient, strict=True):
            if g is not None:
                weight.add_(g, alpha=step)
