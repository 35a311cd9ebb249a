"""Units of a share of the examples are not read alone, drawn anew in every epoch."""

import pytest
from tiny_chats import CHATS, tokenizer

from latentlm.components.units import UnitsAlone
from latentlm.config.schema import ConfigError
from latentlm.data import Collator, augment_examples, conversation, encode_dataset, finders
from latentlm.data.text.augment import UnitDropout
from latentlm.experiment.recipe import load_recipe


def dataset(prob, count=300):
    plain = encode_dataset([conversation(CHATS[2])] * count, tokenizer(), 64, grains=finders(["turn"]))
    return augment_examples(plain, [UnitDropout(prob)], seed=0)


def test_a_share_of_the_examples_is_drawn_anew_in_every_epoch():
    rows = dataset(0.75)
    kept = []
    for epoch in (0, 1):
        rows.set_epoch(epoch)
        kept.append([rows[i]["read_units"] for i in range(len(rows))])
    assert kept[0] != kept[1]
    for each in kept:
        assert abs(sum(each) / len(each) - 0.25) < 0.08
    rows.set_epoch(0)
    assert [row["read_units"] for row in rows.__getitems__([5, 3])] == [kept[0][5], kept[0][3]]


def test_what_is_not_read_alone_costs_nothing_and_keeps_its_document():
    rows = dataset(0.5)
    rows.set_epoch(0)
    collate = Collator(0, grains=("turn",), alone=(UnitsAlone("turn"),))
    for i in range(6):
        batch = collate([rows[i]])
        alone = batch["latent"]["alone/turn"]
        assert bool((alone >= 0).any()) == rows[i]["read_units"]
        assert int(batch["latent"]["segments"].max()) == (2 if rows[i]["read_units"] else 0)
        assert (batch["latent"]["units/turn"].max()) == 1


def test_it_needs_units_that_are_read_alone():
    with pytest.raises(ConfigError, match="unit_dropout needs a term over units that are read alone"):
        load_recipe("nitp", ["data.augment=[{kind: unit_dropout}]"])
    assert load_recipe("llm_jepa", ["data.augment=[{kind: unit_dropout, prob: 0.75}]"])
    with pytest.raises(ConfigError, match="unit_dropout: prob 2"):
        load_recipe("llm_jepa", ["data.augment=[{kind: unit_dropout, prob: 2}]"])
