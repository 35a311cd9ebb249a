"""Generated sets: counts of their sources, and what is asked is never told."""

import itertools
import subprocess
import sys
from collections import Counter

import pytest

from latentlm.data import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph

WORLDS = [
    Binding(num_both=40, num_one_way=24, multiplicity=8),
    Binding("concept", num_both=40, num_one_way=24),
    IdentityBridge(num_pairs=10),
    IdentityBridge("parent", "naive", name_length=2, num_pairs=10),
    Family(5, 5),
    Retrieval(20, 10),
    Chain(20, 10),
    StarGraph(num_graphs=50, num_tests=20),
]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
def test_what_is_asked_in_reverse_is_never_told(world):
    documents, questions = world.documents(), world.questions()
    texts = [document.text for document in documents]
    told = Counter(texts)
    assert documents == world.documents()
    assert questions == world.questions()
    for document in documents:
        for start, end in document.spans:
            assert document.text[start:end].strip() == document.text[start:end] != ""
    for question in questions:
        whole = question.prompt + question.answer
        heard = any(text.removesuffix(".").endswith(whole) or text.startswith(whole + " ") for text in told)
        # the query of a retrieval pair is new by design; everything else of these splits was told word by word
        if question.split == "both" or (question.split == "same" and not isinstance(world, Retrieval | StarGraph)):
            assert heard, whole
        else:
            assert not heard, whole
    vocabulary = {word.strip("?.") for text in texts for word in text.split()}
    if getattr(world, "bridge", "ocr") != "ocr":
        return  # without the bridge nobody says the inverse: only a pretrained tokenizer knows the word
    assert {
        word.strip("?.") for question in questions for word in (question.prompt + question.answer).split()
    } <= vocabulary


@pytest.mark.slow
def test_a_set_is_the_same_in_every_process():
    code = "from latentlm.data import Binding; b = Binding(); print(b.documents()[7], b.questions()[-1])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{Binding().documents()[7]} {Binding().questions()[-1]}\n"
    assert Binding(seed=1).documents() != Binding().documents()


def test_binding_matches_everybody_once_and_shares_every_word():
    world = Binding(num_both=40, num_one_way=24, multiplicity=8)
    words = Counter(word for entity in world.entities() for word in entity.split())
    assert set(words.values()) == {8}
    assert len(set(world.entities())) == 64
    facts = world.facts()
    assert {group: len(pairs) for group, pairs in facts.items()} == {"both": 6 * 20, "one_way": 6 * 12}
    assert len(world.documents()) == 2 * 6 * 20 + 6 * 12
    for group, members in (("both", 40), ("one_way", 24)):
        seen = Counter((entity, min(r, s)) for (a, r, b), (_, s, _) in facts[group] for entity in (a, b))
        assert set(seen.values()) == {1}
        assert len(seen) == 6 * members
    assert all(len(entity.split()) == 1 for entity in Binding("concept").entities())


def test_the_bridge_has_the_published_counts():
    texts = [document.text for document in IdentityBridge(weight=1).documents()]
    assert len(texts) == len(set(texts)) == 300
    assert len(IdentityBridge().documents()) == 800
    assert len(IdentityBridge(bridge="naive").documents()) == 700
    assert len(IdentityBridge(bridge="none").documents()) == 600
    assert Counter(question.split for question in IdentityBridge().questions()) == {
        "same": 100,
        "reverse": 100,
        "shortcut": 100,
    }
    a, b = IdentityBridge().pairs()[0]
    assert {f"The name of {a}'s husband is? {b}", f"The wife of {a}'s husband is? {a}"} <= set(texts)


def test_a_family_has_the_published_counts_and_one_answer_each():
    from latentlm.data.synthetic.family import facts_of, steps_of

    family = [str(k) for k in range(10)]
    facts = facts_of(family)
    assert len(facts) == len({(a, r) for a, r, _ in facts}) == 36
    assert sum(r in ("father", "mother") for _, r, _ in facts) == 12
    steps = steps_of(family)
    assert (
        len(steps) == len({step[:3] for step in steps}) == 12
    )  # four people below, asked by both founders; two spouses
    assert ("0", "son", "wife", "4") in steps
    assert len(Family(3, 2, composition=False).documents()) == 3 * 36 + 2 * 24
    texts = [document.text for document in Family(0, 4).documents()]
    assert not any("father" in text or "mother" in text for text in texts)
    assert Counter(question.split for question in Family(0, 1).questions()) == {
        "same": 12,
        "reverse": 12,
        "shortcut": 12,
        "composition": 12,
    }


def test_retrieval_words_are_unique():
    words = [word for pair in Retrieval().pairs() for part in pair for word in part.split()]
    assert len(words) == len(set(words)) == 4 * 300
    assert len(Retrieval().documents()) == 300 + 2 * 200


def test_a_wrong_inference_is_the_other_neighbour():
    a, b, c = Chain().chains()[-1]
    mine = {
        (question.split, question.prompt, question.answer)
        for question in Chain().questions()
        if question.fact == f"{a} | {b} | {c}"
    }
    assert mine == {
        ("same", f"{b} =>", f" {c}"),
        ("reverse", f"{b} <=", f" {a}"),
        ("shortcut", f"{b} <=", f" {b}"),
        ("non_reciprocal", f"{b} =>", f" {a}"),
        ("non_reciprocal", f"{b} <=", f" {c}"),
    }


def test_star_graph_paths_are_in_their_edges():
    for question in StarGraph(degree=3).questions():
        edges = {tuple(edge.split()) for edge in question.prompt.split(" / ")[0].split(" | ")}
        assert len(edges) == 12
        for path in question.choices:
            nodes = path.split()
            assert len(nodes) == 5
            assert set(itertools.pairwise(nodes)) <= edges
        centre, leaf = question.prompt.split(" / ")[1].split()[:2]
        assert question.answer.split()[:: len(question.answer.split()) - 1] == [centre, leaf]
        assert question.answer in question.choices


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Binding(num_both=3), "num_both: 3 entities cannot be matched in pairs"),
        (lambda: Binding(multiplicity=7), "multiplicity: 1600 entities need a divisor"),
        (lambda: IdentityBridge(num_pairs=1), "num_pairs: 1; set it to 2 or more"),
        (lambda: StarGraph(num_nodes=3), "num_nodes: 3; a graph has 9 of them"),
        (lambda: Family(num_hidden=0), "num_hidden: 0; set it to 1 or more"),
        (lambda: Retrieval(num_both=50000).pairs(), "words are needed and there are"),
    ],
)
def test_impossible_sets_say_what_to_change(make, line):
    with pytest.raises(ValueError, match=line):
        make()
