"""Batches of any other collator get the units that `latentlm train` gives, in any padding, and nothing leaks."""

import pytest
import torch
from tiny_chats import CHATS, tokenizer
from tiny_models import build
from transformers import DataCollatorForLanguageModeling

from latentlm import get_latent_model, with_units
from latentlm.components.units import UnitsAlone
from latentlm.data import Chunk, Collator, Document, UnitCollator, conversation, encode_dataset, finders
from latentlm.data.text.chat_turns import headers

GRAINS = ("turn", "sentence", "chunk")
ALONE = (UnitsAlone("turn", (1, 2), 2), UnitsAlone("sentence", None, 0, 1))
TEXTS = ["One two three. Four five! Six?\n\nSeven eight.", "Nine ten. Eleven.", "Twelve thirteen. Fourteen. Fifteen."]


def examples(documents):
    return encode_dataset(documents, tokenizer(), 256, grains=finders(GRAINS, RULES)).to_list()


RULES = (Chunk(3),)
PROSE = [Document(text, units={"turn": [(0, 4, "user"), (4, len(text), "assistant")]}) for text in TEXTS]
DATA = {"chats": [conversation(chat) for chat in CHATS], "prompts": PROSE}


def own(rows):
    tok = tokenizer()
    frame = {"headers": headers(tok)}
    return Collator(tok.pad_token_id, grains=GRAINS, alone=ALONE, **frame)(rows)


def padded(side):
    def collate(rows):
        width = max(len(row["input_ids"]) for row in rows)
        batch = {"input_ids": [], "labels": [], "attention_mask": [], "place": []}
        for row in rows:
            ids, labels, gap = row["input_ids"], row["labels"], width - len(row["input_ids"])
            values = {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids), "place": range(len(ids))}
            for key, value in values.items():
                fill = [{"input_ids": 0, "labels": -100}.get(key, 0)] * gap
                batch[key].append([*value, *fill] if side == "right" else [*fill, *value])
        return {key: torch.tensor(value) for key, value in batch.items()}

    return collate


def packed(rows):
    """All documents in one row, as packing without padding has them."""
    flat = {"input_ids": [], "labels": [], "position_ids": []}
    for row in rows:
        flat["input_ids"] += row["input_ids"]
        flat["labels"] += row["labels"]
        flat["position_ids"] += range(len(row["input_ids"]))
    lengths = torch.tensor([0, *(len(row["input_ids"]) for row in rows)]).cumsum(0).int()
    longest = int(lengths.diff().max())
    more = {"cu_seq_lens_q": lengths, "cu_seq_lens_k": lengths, "max_length_q": longest, "max_length_k": longest}
    return {key: torch.tensor([value]) for key, value in flat.items()} | more


def wrapped(collate, **more):
    from latentlm.trainers.units import _segments

    options = {"grains": GRAINS, "alone": ALONE, "rules": RULES} | more
    return UnitCollator(collate, tokenizer(), lambda batch: _segments(batch, None), **options)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", DATA)
def test_padded_batches_become_those_of_latentlm(kind, side):
    rows = examples(DATA[kind])
    expected, found = own(rows), wrapped(padded(side))(rows)
    place = found.pop("place")
    assert found.keys() == expected.keys()
    assert found["latent"].keys() == expected["latent"].keys()
    for key in ("input_ids", "labels", "position_ids"):
        assert found[key].equal(expected[key]), key
    for key, value in expected["latent"].items():
        assert found["latent"][key].equal(value), key
    in_document = expected["latent"]["segments"] == 0
    assert place[in_document].equal(expected["position_ids"][in_document])  # other keys move along


def test_documents_of_one_row_keep_their_units_apart_and_flash_attention_is_told():
    rows = examples(DATA["chats"])
    apart, found = own(rows), wrapped(packed)(rows)
    segments = found["latent"]["segments"][0]
    assert segments[: sum(len(row["input_ids"]) for row in rows)].unique_consecutive().tolist() == [0, 1, 2]
    for grain in GRAINS:
        numbers = found["latent"][f"units/{grain}"][0]
        assert len(numbers[numbers >= 0].unique()) == sum(len(row["units"][grain]) for row in rows)
        for number in numbers[numbers >= 0].unique():
            assert len(segments[numbers == number].unique()) == 1
    assert (found["latent"]["alone/sentence"] >= 0).sum() == (apart["latent"]["alone/sentence"] >= 0).sum()
    starts = (found["position_ids"][0] == 0).nonzero().flatten()
    assert found["cu_seq_lens_q"].tolist() == [*starts.tolist(), len(segments)]
    assert found["max_length_k"] == found["cu_seq_lens_q"].diff().max()


def test_a_stock_collator_of_transformers():
    tok = tokenizer()
    ids = [tok(text)["input_ids"] for text in TEXTS]
    batch = wrapped(DataCollatorForLanguageModeling(tok, mlm=False), grains=("sentence",), alone=())(
        [{"input_ids": row} for row in ids]
    )
    assert [int(row.max()) + 1 for row in batch["latent"]["units/sentence"]] == [4, 2, 3]
    assert (batch["labels"] != -100).sum() == sum(map(len, ids))


def test_the_last_unit_of_a_text_that_was_cut_is_left_out():
    rows = [{"input_ids": row["input_ids"][:12], "labels": row["input_ids"][:12]} for row in examples(DATA["prompts"])]
    cut = wrapped(packed, max_length=12, grains=("document",), alone=())(rows)
    assert (cut["latent"]["units/document"] < 0).all()
    whole = wrapped(packed, grains=("document",), alone=())(rows)
    assert (whole["latent"]["units/document"] >= 0).all()


LADDER = {
    "terms": {
        "ladder": {
            "kind": "unit_levels",
            "levels": [
                {"grain": "sentence", "depth": "1/2", "predicts": ["next", "data", "parent"]},
                {"grain": "turn", "depth": "3/4", "predicts": ["next", "previous", "parts"]},
            ],
            "target": {"teacher": "online", "stop_grad": False},
        }
    },
    "lm_weight": 0.0,
    "monitor_every": 0,
}


@pytest.mark.filterwarnings("ignore:a second backward")
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_no_unit_sees_or_pairs_with_another_document(layout):
    """The terms of one document have no gradient at the embeddings of another, whichever units they read alone."""
    rows = examples(DATA["chats"])[:2]
    alone = get_latent_model(build("llama", vocab_size=500, max_position_embeddings=512), LADDER).train()
    collate = with_units(packed if layout == "packed" else padded("right"), tokenizer(), alone, units=RULES)
    batch = collate(rows)
    embedded = alone.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    ids = collate(rows)["input_ids"]
    handle = alone.get_input_embeddings().register_forward_hook(lambda *_: embedded)
    states = alone(input_ids=ids, **batch).loss
    handle.remove()
    states.backward()
    assert embedded.grad.abs().sum() > 0
    # only one document's units left: its terms alone
    segments = batch["latent"]["segments"]
    first = batch["latent"] | {}
    owner = segments.clone()
    for grain in ("sentence", "turn"):
        units, copies = first[f"units/{grain}"], first[f"alone/{grain}"]
        for r in range(len(units)):
            for number in units[r][units[r] >= 0].unique():
                document = int(segments[r][units[r] == number][0]) + 100 * r
                owner[r][copies[r] == number] = document
        keep = (segments == 0) & (torch.arange(len(units)) == 0)[:, None]
        first[f"units/{grain}"] = torch.where(keep, units, -1)
    embedded.grad = None
    handle = alone.get_input_embeddings().register_forward_hook(lambda *_: embedded)
    alone(input_ids=ids, **(batch | {"latent": first})).loss.backward()
    handle.remove()
    other = (segments == 1) if layout == "packed" else (torch.arange(len(segments)) == 1)[:, None] & (segments == 0)
    assert embedded.grad[other].abs().max() == 0
    assert embedded.grad[~other].abs().max() > 0


def test_what_cannot_be_wrapped_is_refused():
    plain = get_latent_model(build("llama"), "nitp")
    with pytest.raises(ValueError, match="read no units"):
        with_units(packed, tokenizer(), plain)
    own_grain = LADDER | {"terms": {"a": LADDER["terms"]["ladder"] | {"levels": [{"grain": "verse", "depth": 1}]}}}
    with pytest.raises(ValueError, match="no rule for the grain 'verse'"):
        with_units(packed, tokenizer(), get_latent_model(build("llama"), own_grain))
    with pytest.raises(ValueError, match="lets packed segments see each other"):
        with_units(packed, tokenizer(), get_latent_model(build("mamba"), LADDER))
    with pytest.raises(ValueError, match="the batch has no input_ids"):
        wrapped(lambda rows: {"inputs_embeds": rows})([])


def test_a_grain_that_no_batch_has_is_told_once():
    prose = [{"input_ids": tokenizer()(text)["input_ids"]} for text in TEXTS]
    collate = wrapped(DataCollatorForLanguageModeling(tokenizer(), mlm=False), grains=("turn",), alone=ALONE[:1])
    for _ in range(3):
        collate(prose)
    with pytest.warns(UserWarning, match="no turn that a term reads in the first 4 batches.*marked by conversations"):
        collate(prose)
    collate(prose)  # told once
    found = wrapped(padded("right"))
    for _ in range(5):
        found(examples(DATA["chats"]))


@pytest.mark.parametrize("read", ["alone", "in_context"])
def test_a_neighbour_that_no_document_has_is_told_once(read):
    level = {"grain": "sentence", "depth": 1, "predicts": ["next", "after_next"]}
    objective = {"terms": {"a": {"kind": "unit_levels", "levels": [level], "read": read}}}
    model = get_latent_model(build("llama", vocab_size=500), objective)
    collate = with_units(DataCollatorForLanguageModeling(tokenizer(), mlm=False), tokenizer(), model)
    two, three = ([{"input_ids": tokenizer()(text)["input_ids"]}] for text in ("One. Two.", "One. Two. Three."))
    for _ in range(3):
        collate(two)
    with pytest.warns(
        UserWarning, match=r"has 3 of 'sentence', so terms that read the sentence \+2 .* train nothing"
    ) as told:
        collate(two)
    assert len(told) == 1
    collate(two)  # told once
    other = with_units(DataCollatorForLanguageModeling(tokenizer(), mlm=False), tokenizer(), model)
    for rows in (two, three, two, two):
        other(rows)
