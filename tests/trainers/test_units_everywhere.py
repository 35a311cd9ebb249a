"""Terms over units, and the labels, are the same through latentlm's data, any Trainer, TRL and a plain loop."""

from functools import lru_cache

import pytest
import torch
from accelerate import Accelerator
from attached_models import lora
from combinations import combinations
from datasets import Dataset
from tiny_chats import CHATS, tokenizer
from tiny_models import build
from tiny_trainers import arguments
from transformers import DataCollatorForSeq2Seq, Trainer
from trl import SFTConfig

from latentlm import get_latent_model, with_units
from latentlm.attach.state import latent_state
from latentlm.data import Collator, Document, Pattern, conversation, encode_dataset, finders
from latentlm.data.text.chat_turns import headers
from latentlm.objective.index_sets import units_read
from latentlm.trainers.latent_trainer import LatentTrainer
from latentlm.trainers.sft import LatentSFTTrainer

PROSE = ["One two three. Four five! Six?\n\nSeven eight. Nine.", "Ten one. Two.\n\nThree four five."]
PROMPTS = [
    {"prompt": "Two plus two? Say it.", "completion": " It is four. Yes."},
    {"prompt": "Hi!", "completion": " Hello. You."},
]
TABLES = {
    "chats": [
        {"grain": "sentence", "depth": "1/2"},
        {"grain": "turn", "depth": "3/4", "predicts": ["next", "previous"]},
    ],
    "prompts": [{"grain": "sentence", "depth": "1/2", "predicts": ["next", "data"]}, {"grain": "turn", "depth": "3/4"}],
    "prose": [
        {"grain": "sentence", "depth": "1/2", "predicts": ["next", "parent"]},
        {"grain": "paragraph", "depth": 1},
    ],
}


def model_of(kind, tuning):
    ladder = {"kind": "unit_levels", "levels": TABLES[kind], "target": {"teacher": "online"}}
    network = build("llama", vocab_size=500, max_position_embeddings=512)
    model = get_latent_model(network, {"terms": {"ladder": ladder}, "monitor_every": 0}).train()
    return lora(model) if tuning == "lora" else model


def documents(kind):
    if kind == "chats":
        return [conversation(chat) for chat in CHATS]
    if kind == "prose":
        return [Document(text) for text in PROSE]
    rows = [(row["prompt"], row["completion"]) for row in PROMPTS]
    return [Document(a + b, units={"turn": [(0, len(a), "user"), (len(a), len(a + b), "assistant")]}) for a, b in rows]


def encoded(kind):
    """What `latentlm train` makes of the documents."""
    grains, alone = units_read(latent_state(model_of(kind, "full")).objective.terms.values())
    tok = tokenizer("marked")
    rows = encode_dataset(documents(kind), tok, 256, grains=finders(grains)).to_list()
    return rows, Collator(tok.pad_token_id, grains=grains, alone=alone, headers=headers(tok))


def plain(kind):
    return [{key: row[key] for key in ("input_ids", "labels")} for row in encoded(kind)[0]]


def collator(layout):
    """Another library's: padding and a mask, or all documents in one row with positions that restart."""
    if layout == "right":
        return DataCollatorForSeq2Seq(tokenizer("marked"))

    def packed(rows):
        values = {"input_ids": [], "labels": [], "position_ids": []}
        for row in rows:
            values["input_ids"] += row["input_ids"]
            values["labels"] += row["labels"]
            values["position_ids"] += range(len(row["input_ids"]))
        return {key: torch.tensor([value]) for key, value in values.items()}

    return packed


@lru_cache
def expected(kind, tuning):
    """One step on the batch of `latentlm train`."""
    rows, collate = encoded(kind)
    return step(model_of(kind, tuning), collate(rows))


def step(model, batch):
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(model)
    accelerator.backward(model(**batch).loss)
    return latent_state(model).monitoring.metrics.means(torch.device("cpu"), lambda sums: sums)


def trained(trainer):
    trainer.train()
    return trainer.state.log_history[0]


def of_trl(kind, layout):
    """Rows that TRL prepares by itself, and what it has to be told."""
    more = {
        "packing": layout == "packed",
        "max_length": 400,
        "per_device_train_batch_size": 1 if layout == "packed" else 4,
    }
    if kind == "chats":
        return [{"messages": chat} for chat in CHATS], more | {"assistant_only_loss": True}
    return (PROMPTS if kind == "prompts" else [{"text": text} for text in PROSE]), more


@pytest.mark.filterwarnings("ignore")  # TRL's, about attention and padding
@pytest.mark.parametrize(
    ("how", "kind", "layout", "tuning"),
    combinations(["loop", "stock trainer", "trainer", "sft"], list(TABLES), ["right", "packed"], ["full", "lora"]),
)
def test_the_same_terms_in_every_way(how, kind, layout, tuning, tmp_path):
    model, tok = model_of(kind, tuning), tokenizer("marked")
    options = {"per_device_train_batch_size": 4}
    if how == "loop":
        found = step(model, with_units(collator(layout), tok, model)(plain(kind)))
    elif how == "stock trainer":
        wrapped = with_units(collator(layout), tok, model)
        data = Dataset.from_list(plain(kind))
        trained(Trainer(model, arguments(tmp_path, **options), train_dataset=data, data_collator=wrapped))
        found = latent_state(model).monitoring.metrics.means(torch.device("cpu"), lambda sums: sums)
    elif how == "trainer":
        data = Dataset.from_list(plain(kind))
        found = trained(
            LatentTrainer(
                model,
                arguments(tmp_path, **options),
                train_dataset=data,
                data_collator=collator(layout),
                processing_class=tok,
            )
        )
    else:
        rows, more = of_trl(kind, layout)
        config = arguments(tmp_path, config=SFTConfig, dataset_kwargs=None, **more)
        found = trained(LatentSFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tok))
    wanted = expected(kind, tuning)
    terms = {"ladder/" + f"{level['grain']}_{r}" for level in TABLES[kind] for r in level.get("predicts", ["next"])}
    assert {key.removesuffix("/value") for key in wanted if key.endswith("/value")} == {"data", *terms}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=2e-5)


def _with_parts():
    """The table of prose, its paragraphs under a name of one's own."""
    levels = [*TABLES["prose"][:1], {"grain": "part", "depth": 1}]
    ladder = {"kind": "unit_levels", "levels": levels, "target": {"teacher": "online"}}
    network = build("llama", vocab_size=500, max_position_embeddings=512)
    return get_latent_model(network, {"terms": {"ladder": ladder}, "monitor_every": 0}).train()


PARTS = Pattern("part", between=r"\n\n")


@pytest.mark.filterwarnings("ignore")  # TRL's, about attention and padding
@pytest.mark.parametrize("trainer", [LatentTrainer, LatentSFTTrainer])
def test_trainers_take_rules_of_ones_own(trainer, tmp_path):
    tok = tokenizer("marked")
    if trainer is LatentSFTTrainer:
        rows, more = of_trl("prose", "right")
        config, more = arguments(tmp_path, config=SFTConfig, dataset_kwargs=None, **more), {}
    else:
        rows, more = plain("prose"), {"data_collator": collator("right")}
        config = arguments(tmp_path, per_device_train_batch_size=4)
    data = Dataset.from_list(rows)
    found = trained(trainer(_with_parts(), config, train_dataset=data, processing_class=tok, units=[PARTS], **more))
    wanted = {key.replace("paragraph", "part"): value for key, value in expected("prose", "full").items()}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=2e-5)


def test_rules_that_nobody_would_read_are_refused(tmp_path):
    tok, model = tokenizer("marked"), _with_parts()
    data = Dataset.from_list(plain("prose"))
    wrapped = with_units(collator("right"), tok, model, units=[PARTS])
    with pytest.raises(ValueError, match="units: the collator finds units itself; give it the rules"):
        LatentTrainer(model, arguments(tmp_path), train_dataset=data, data_collator=wrapped, units=[PARTS])
    network = get_latent_model(build("llama", vocab_size=500), {"terms": {}})
    with pytest.raises(ValueError, match="units: no term reads any; leave it out"):
        LatentTrainer(network, arguments(tmp_path), train_dataset=data, units=[PARTS])


PAIRWISE = {
    "kind": "unit_levels",
    "levels": [{"grain": "sentence", "depth": "1/2", "predicts": ["next", "data"]}],
    "loss": "cosine",
    "target": {"teacher": "online"},
}


@pytest.mark.parametrize("rows", [1, 3])
def test_accumulating_is_one_batch(rows, tmp_path):
    """Documents have different numbers of sentences, and every pair counts the same."""
    network = build("llama", vocab_size=500, max_position_embeddings=512)
    model = get_latent_model(network, {"terms": {"ladder": PAIRWISE}, "monitor_every": 0})
    options = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": 3 // rows}
    data = Dataset.from_list(plain("chats"))
    more = {"data_collator": collator("right"), "processing_class": tokenizer("marked")}
    found = trained(LatentTrainer(model, arguments(tmp_path, **options), train_dataset=data, **more))
    assert {key: found[key] for key in ("loss", "data/value", *_terms(found))} == pytest.approx(_whole(), rel=2e-5)


def _terms(found):
    return [key for key in found if key.startswith("ladder/") and key.endswith("/value")]


@lru_cache
def _whole():
    network = build("llama", vocab_size=500, max_position_embeddings=512)
    model = get_latent_model(network, {"terms": {"ladder": PAIRWISE}, "monitor_every": 0}).train()
    batch = with_units(collator("right"), tokenizer("marked"), model)(plain("chats"))
    output = model(**batch)
    output.loss.backward()
    means = latent_state(model).monitoring.metrics.means(torch.device("cpu"), lambda sums: sums)
    return {"loss": output.loss.item(), "data/value": means["data/value"], **{key: means[key] for key in _terms(means)}}


def test_units_without_a_tokenizer_are_refused_at_the_beginning(tmp_path):
    data = Dataset.from_list(plain("prose"))
    with pytest.raises(ValueError, match="units 'sentence' are found in the text: give the tokenizer as processing_cl"):
        LatentTrainer(
            model_of("prose", "full"), arguments(tmp_path), train_dataset=data, data_collator=collator("right")
        )


def test_a_batch_without_units_says_what_to_do():
    batch = collator("right")(plain("prose"))
    with pytest.raises(ValueError, match=r"no units 'sentence'.*latentlm.with_units\(collator, tokenizer, model\)"):
        model_of("prose", "full")(**batch)
