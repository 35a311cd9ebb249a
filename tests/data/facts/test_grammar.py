"""The random hierarchy: one reading each, exact entropy against all sentences, disjoint splits."""

import itertools
import math

import numpy as np
import pytest

from latentlm.data.synthetic.grammar import Grammar

SMALL = Grammar(depth=2, branching=2, symbols=3, rules=2, sentences=10, held_out=10)


def everything(grammar):
    """All sentences by brute force, as tuples of tokens, with their roots."""

    def written(symbol, level):
        if level == 0:
            return [(symbol,)]
        rules = grammar.productions[level - 1][symbol]
        parts = [[written(int(each), level - 1) for each in rule] for rule in rules]
        return [sum(choice, ()) for options in parts for choice in itertools.product(*options)]

    return [(root, tokens) for root in range(grammar.symbols) for tokens in written(root, grammar.depth)]


@pytest.mark.parametrize("grammar", [SMALL, Grammar(2, 3, 2, 2, 10, 10, seed=4), Grammar(1, 2, 4, 3, 5, 5)])
def test_every_sentence_has_one_reading_and_the_entropy_is_that_of_all_of_them(grammar):
    sentences = [tokens for _, tokens in everything(grammar)]
    assert len(set(sentences)) == len(sentences) == grammar.count
    found = grammar.surprise(np.array(sentences))
    for tokens, values in zip(sentences, found, strict=True):
        for place, value in enumerate(values):
            prefix = [other for other in sentences if other[:place] == tokens[:place]]
            same = [other for other in prefix if other[place] == tokens[place]]
            assert value == pytest.approx(-math.log(len(same) / len(prefix)))
    assert found.sum(1) == pytest.approx(math.log(grammar.count))


def test_levels_are_what_the_rules_write():
    grammar = Grammar(sentences=300, held_out=100)
    levels = grammar.levels("train")
    assert [level.shape for level in levels] == [(300, 8), (300, 4), (300, 2), (300, 1)]
    for low, high, rules in zip(levels, levels[1:], grammar.productions, strict=False):
        pairs = low.reshape(300, -1, 2)
        assert (rules[high] == pairs[:, :, None]).all(-1).any(-1).all()
    roots = {tokens: root for root, tokens in everything(SMALL)}
    tokens, *_, top = SMALL.levels("held_out")
    assert [roots[tuple(row)] for row in tokens] == top[:, 0].tolist()


def test_splits_are_disjoint_and_what_is_held_out_stays():
    few, many = Grammar(sentences=500, held_out=200), Grammar(sentences=2000, held_out=200)
    texts = [{document.text for document in each} for each in (few.documents(), few.held_out_documents())]
    assert [len(each) for each in texts] == [500, 200]
    assert not texts[0] & texts[1]
    assert many.held_out_documents() == few.held_out_documents()
    assert many.documents()[:500] == few.documents()
    other = Grammar(sentences=500, held_out=200, seed=1)
    assert not np.array_equal(other.productions[0], few.productions[0])
    document = few.documents()[0]
    assert (few.read(document.text) == few.levels("train")[0][0]).all()
    assert document.text == "d g c f a a b b"  # the same in all processes


def test_what_cannot_be_is_refused():
    for message, given in {
        "depth: 0; set it to 1 or more": {"depth": 0},
        "symbols: 30; set it to 26 or less": {"symbols": 30},
        "rules: 9 would write the same symbols twice; set it to 8 or less": {"rules": 9},
        "the grammar has only 48": {"depth": 1},
        "depth: 10 gives sentences of 1024 tokens": {"depth": 10},
    }.items():
        with pytest.raises(ValueError, match=message):
            Grammar(**given)
