"""What a run was told, as facts that can be asked from both sides.

Of data whose sentences relate two things in a fixed form; other kinds have no pairs, and the suite says so.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from latentlm.data import Binding, Chain, Facts, Family, IdentityBridge, NameDescription, Question, Retrieval
from latentlm.data.synthetic.family import facts_of
from latentlm.data.synthetic.templates import RELATIONS
from latentlm_evals.coherence.fact_pairs import Pairs

T = TypeVar("T")
# relation told, its inverse, and a relation of who is told of (a) with the words that tell of its answer (c)
_RELATIVES = (
    ("son", "father", "wife", "husband"),
    ("daughter", "mother", "husband", "wife"),
    ("husband", "wife", "son", "father"),
)


def own_pairs(data: Any, limit: int) -> list[Pairs]:
    """A run's own facts, by relation and by how they were told, at most `limit` of each; none of kinds without any."""
    makers = {
        Facts: _facts,
        Family: _family,
        NameDescription: _name_description,
        Binding: _binding,
        IdentityBridge: _identity_bridge,
        Retrieval: _retrieval,
        Chain: _chain,
    }
    make = makers.get(type(data))
    return [] if make is None else make(data, limit)


def _facts(data: Facts, limit: int) -> list[Pairs]:
    """Asked in sentences that were not trained on."""
    groups: dict[str, list] = {}
    for fact in data.facts():
        groups.setdefault(fact.subset, []).append(fact)
    found = []
    for name, facts in groups.items():
        relation = RELATIONS[facts[0].relation]
        if relation.b_to_a is None:
            continue
        ahead, back = relation.a_to_b.test[0], relation.b_to_a.test[0]
        forward, reverse = (
            frame[: frame.index("{" + asked + "}")].rstrip().replace("{" + known + "}", "{}")
            for frame, known, asked in ((ahead, "a", "b"), (back, "b", "a"))
        )
        found.append(_pairs(name, [(fact.a, fact.b) for fact in _spread(facts, limit)], forward, reverse))
    return found


def _family(data: Family, limit: int) -> list[Pairs]:
    """Whole families, so that facts share people; b -> a -> c is a chain: the father of the son, his wife."""
    families, found = data.families(), []
    for group, own in (("shown", families[: data.num_shown]), ("hidden", families[data.num_shown :])):
        for relation, inverse, then, of_then in _RELATIVES:
            chains, clusters = [], []
            for number, family in enumerate(_spread(own, limit // 3)):
                step = {(a, word): b for a, word, b in facts_of(family)}
                mine = [
                    (a, b, step[a, then])
                    for (a, word), b in step.items()
                    if word == relation and step.get((b, inverse)) == a and (a, then) in step
                ]
                chains, clusters = chains + mine, clusters + [number] * len(mine)
            if chains:
                name, frames = f"family_{group}_{relation}", (f"The {relation} of {{}} is", f"The {inverse} of {{}} is")
                found.append(_pairs(name, chains, *frames, f"The {of_then} of {{}} is", clusters))
    return found


def _name_description(data: NameDescription, limit: int) -> list[Pairs]:
    """In the held-out wording that holds the most names, and the most descriptions, as they are."""
    groups: dict[str, list[Question]] = {}
    for question in data.questions():
        if question.split != "shortcut":
            groups.setdefault(question.subset, []).append(question)
    found = []
    for name, questions in groups.items():
        facts = list(dict.fromkeys(tuple(question.fact.split(" | ")) for question in questions))
        forward, reverse = (
            _commonest(
                question.prompt.replace(question.fact.split(" | ")[side], "{}")
                for question in questions
                if question.answer_type == answer_type
            )
            for side, answer_type in ((0, "description"), (1, "name"))
        )
        found.append(_pairs(name, _spread(facts, limit), forward, reverse))
    return found


def _binding(data: Binding, limit: int) -> list[Pairs]:
    """Of the first relation, those told as ``h r t``."""
    found = []
    for group, facts in data.facts().items():
        (_, verb, _), (_, inverse, _) = facts[0]
        rows = [(fact[0], fact[2]) for fact, _ in facts if fact[1] == verb]
        found.append(_pairs(f"binding_{group}", _spread(rows, limit), f"{{}} {verb}", f"{{}} {inverse}"))
    return found


def _identity_bridge(data: IdentityBridge, limit: int) -> list[Pairs]:
    inverse = {"husband": "wife", "parent": "child"}[data.relation]
    frames = f"The name of {{}}'s {data.relation} is?", f"The {inverse} of {{}} is?"
    return [_pairs(f"bridge_{data.relation}", _spread(data.pairs(), limit), *frames)]


def _retrieval(data: Retrieval, limit: int) -> list[Pairs]:
    rows = data.pairs()
    groups = (("both", rows[: data.num_both]), ("one_way", rows[data.num_both :]))
    return [
        _pairs(f"retrieval_{name}", _spread(own, limit), "value of {} :", "key of {} :") for name, own in groups if own
    ]


def _chain(data: Chain, limit: int) -> list[Pairs]:
    """Of ``x => y => z`` the link from y to z; z, y, x is the chain."""
    rows = data.chains()
    groups = (("both", rows[: data.num_both]), ("one_way", rows[data.num_both :]))
    return [
        _pairs(f"chain_{name}", [(y, z, x) for x, y, z in _spread(own, limit)], "{} =>", "{} <=", "{} =>")
        for name, own in groups
        if own
    ]


def _pairs(
    name: str,
    rows: Sequence[tuple[str, ...]],
    forward: str,
    reverse: str,
    third: str = "",
    clusters: Sequence[int] | None = None,
) -> Pairs:
    a, b, *c = zip(*rows, strict=True)
    numbers = tuple(range(len(rows))) if clusters is None else tuple(clusters)
    return Pairs(name, a, b, forward, reverse, c[0] if c else (), third, numbers)


def _spread(rows: Sequence[T], limit: int) -> list[T]:
    """At most so many, from all over the list."""
    count = min(limit, len(rows))
    return [rows[i * len(rows) // count] for i in range(count)]


def _commonest(frames: Iterable[str]) -> str:
    return Counter(frame for frame in frames if "{}" in frame).most_common(1)[0][0]
