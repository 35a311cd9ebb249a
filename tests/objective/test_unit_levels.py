"""A table of levels over units is the terms that it stands for, and these equal a loop over the units."""

import pytest
import torch
import torch.nn.functional as F
from tiny_chats import CHATS, tokenizer
from tiny_models import build
from toy_view import objective

from latentlm import get_latent_model, with_units
from latentlm.attach.state import latent_state
from latentlm.config.catalog import method_names
from latentlm.objective.index_sets import units_read
from latentlm.objective.weight import Weight

TABLE = """
terms:
  ladder:
    kind: unit_levels
    levels:
      - {grain: sentence, depth: 1/2, predicts: [next, data, parent], weight: 0.5}
      - {grain: turn, depth: 3/4, predicts: [next, after_next, previous, parts], weight: {value: 2.0, start: 3}}
    target: {teacher: online, normalize: none}
    data: order
    most: 3
    weight: 0.1
"""
BY_HAND = """
terms:
  ladder/sentence_next:
    kind: predict
    source: {depth: 1/2, at: {kind: unit, grain: sentence}}
    target:
      kind: online
      tap: {depth: 1/2, at: {kind: unit, grain: sentence, offset: 1, read: alone}}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.05}
  ladder/sentence_data:
    kind: predict
    source: {depth: 1/2, at: {kind: unit, grain: sentence}}
    target: {kind: tokens, ids: {kind: unit, grain: sentence, offset: 1, pick: all}}
    predictor: {kind: per_token_linear, num: 3}
    loss: next_token
    decode_with: norm_and_lm_head
    reduction: per_example
    weight: {value: 0.05}
  ladder/sentence_parent:
    kind: predict
    source: {depth: 1/2, at: {kind: unit, grain: sentence}}
    target: {kind: online, tap: {depth: 3/4, at: {kind: unit, grain: turn, parent_of: sentence, read: alone}}}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.05}
  ladder/turn_next:
    kind: predict
    source: {depth: 3/4, at: {kind: unit, grain: turn}}
    target: {kind: online, tap: {depth: 3/4, at: {kind: unit, grain: turn, offset: 1, read: alone}}}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.2, start: 3}
  ladder/turn_after_next:
    kind: predict
    source: {depth: 3/4, at: {kind: unit, grain: turn}}
    target: {kind: online, tap: {depth: 3/4, at: {kind: unit, grain: turn, offset: 2, read: alone}}}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.2, start: 3}
  ladder/turn_previous:
    kind: predict
    source: {depth: 3/4, at: {kind: unit, grain: turn}}
    target: {kind: online, tap: {depth: 3/4, at: {kind: unit, grain: turn, offset: -1, read: alone}}}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.2, start: 3}
  ladder/turn_parts:
    kind: predict
    source: {depth: 3/4, at: {kind: unit, grain: turn}}
    target: {kind: online, tap: {depth: 1/2, at: {kind: unit, grain: sentence, parts_of: turn, read: alone}}}
    predictor: {kind: per_token_linear, num: 3}
    loss: {kind: info_nce, skip_duplicates: true}
    weight: {value: 0.2, start: 3}
"""


def by_hand(text: str):
    """Names of terms have no slash in a file."""
    written = objective(text.replace("ladder/", "ladder-")).resolve(4)
    return {name.replace("ladder-", "ladder/"): term for name, term in written.items()}


def test_a_table_is_its_terms():
    assert objective(TABLE).resolve(4) == by_hand(BY_HAND)


def test_a_grain_at_several_depths_has_the_terms_of_each():
    levels = """
terms:
  ladder:
    kind: unit_levels
    levels:
      - {grain: chunk, depth: 1/4, predicts: [parent], weight: 0.5}
      - {grain: sentence, depth: [1/4, 1/2], predicts: [next, data, parts, parent], weight: 0.5}
      - {grain: turn, depth: [1/2, 3/4], predicts: [parts]}
"""
    terms = objective(levels).resolve(4)
    depths = {
        name.removeprefix("ladder/"): (
            int(term.source.depth),
            getattr(getattr(term.target, "tap", None), "depth", None),
        )
        for name, term in terms.items()
    }
    assert depths == {
        "chunk_parent": (1, 1),
        "sentence_next_1": (1, 1),
        "sentence_next_2": (2, 2),
        "sentence_data_1": (1, None),
        "sentence_data_2": (2, None),
        "sentence_parts_1": (1, 1),
        "sentence_parts_2": (2, 1),
        "sentence_parent_1": (1, 2),
        "sentence_parent_2": (2, 2),
        "turn_parts_1": (2, 2),
        "turn_parts_2": (3, 2),
    }
    assert terms["ladder/sentence_next_2"].weight.value == 0.5
    with pytest.raises(ValueError, match="two depths of sentence are the same block of 2"):
        objective(levels).resolve(2)
    with pytest.raises(ValueError, match="the level turn has no depth"):
        objective(levels.replace("[1/2, 3/4]", "[]"))


def test_every_hierarchy_reads_its_units_alone():
    for name in ("hierarchy", "hierarchy_chat", "hierarchy_documents"):
        from latentlm.attach.api import as_objective

        grains, alone = units_read(as_objective(name).terms.values())
        assert name in method_names()
        assert set(grains) >= {each.grain for each in alone}
        assert alone


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("predicts: [next, after_next, previous, parts]", "the largest grain and has no parent"),
        ("predicts: [next, data, parent]", "the smallest grain and has no parts"),
        ("grain: turn", "each of a grain of its own"),
        ("most: 3", "most 0; set it to 1 or more"),
        ("predicts: [next, data, parent], weight: 0.5", "predicts nothing"),
    ],
)
def test_tables_that_make_no_sense(change, line):
    new = {
        "predicts: [next, after_next, previous, parts]": "predicts: [parent]",
        "predicts: [next, data, parent]": "predicts: [parts]",
        "grain: turn": "grain: sentence",
        "most: 3": "most: 0",
    }.get(change, "predicts: []")
    with pytest.raises(ValueError, match=line):
        objective(TABLE.replace(change, new))


def test_next_units_read_alone_equal_a_loop():
    """InfoNCE of each sentence and the next one of its conversation, which the network has read by itself."""
    tok = tokenizer()
    text = TABLE.replace("predicts: [next, data, parent]", "predicts: [next]")
    text = "\n".join(line for line in text.split("\n") if "grain: turn" not in line)
    network = build("llama", vocab_size=500, max_position_embeddings=256)
    model = get_latent_model(network, objective(text)).double().train()
    rows = [tok.apply_chat_template(chat, return_dict=True)["input_ids"] for chat in CHATS]

    def collate(ids):
        width = max(map(len, ids))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
        return {
            "input_ids": padded,
            "labels": padded,
            "attention_mask": (torch.arange(width) < torch.tensor([[len(r)] for r in ids])).long(),
        }

    batch = with_units(collate, tok, model)(rows)
    found = model(**batch).latent_loss
    term = model.latent.terms["ladder/sentence_next"]
    sources, targets = [], []
    for r, row in enumerate(rows):
        whole = model.model(torch.tensor([row]), output_hidden_states=True).hidden_states[2][0]
        numbers = batch["latent"]["units/sentence"][r]
        for number in range(int(numbers.max())):
            tokens = (numbers == number).nonzero().flatten()
            after = (numbers == number + 1).nonzero().flatten()
            sources.append(whole[tokens[-1]])
            alone = model.model(batch["input_ids"][r][after][None], output_hidden_states=True).hidden_states[2][0]
            targets.append(alone[-1].detach())
    guess = torch.stack(sources) @ term.predictor.network.weight.T + term.predictor.network.bias
    cosines = F.normalize(guess, dim=-1) @ F.normalize(torch.stack(targets), dim=-1).T / 0.1
    same = F.normalize(torch.stack(targets), dim=-1) @ F.normalize(torch.stack(targets), dim=-1).T > 1 - 1e-9
    cosines = cosines.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool), -torch.inf)
    expected = 0.05 * F.cross_entropy(cosines, torch.arange(len(cosines)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert latent_state(model).objective.terms["ladder"].weight == 0.1


def test_a_table_has_one_schedule_one_control_and_one_place_for_its_gradient():
    whole = "    weight: {value: 0.1, stop: 0.5}\n    teacher: random\n    into: head\n"
    cells = objective(TABLE.replace("    weight: 0.1\n", whole)).resolve(4)
    weights = {name.partition("/")[2]: cell.weight for name, cell in cells.items()}
    assert weights["sentence_next"] == Weight(0.05, stop=0.5)
    assert weights["turn_next"] == Weight(0.2, start=3)  # a level keeps a schedule of its own
    assert {cell.source.into for cell in cells.values()} == {"head"}
    targets = {name.partition("/")[2]: type(cell.target).__name__ for name, cell in cells.items()}
    assert targets.pop("sentence_data") == "Tokens"
    assert set(targets.values()) == {"Random"}
