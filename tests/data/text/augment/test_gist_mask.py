"""Gist mask: what is hidden, from where on, how often, and that no later logit depends on it."""

import pytest
import torch
from attached_models import attach

from latentlm.attach.leak_checks import sees_hidden
from latentlm.components.attention_mask import as_attention_mask, seen
from latentlm.config.schema import ConfigError
from latentlm.data import Collator, Document, Facts, augment_examples, encode_dataset, word_tokenizer
from latentlm.data.text.augment import AnswerNoise, GistMask
from latentlm.data.text.augment.gist_mask import hidden_in
from latentlm.experiment.recipe import load_recipe

FACTS = Facts(num_a_to_b=20, num_b_to_a=20, num_both=60, templates_per_fact=6)
DOCUMENTS = FACTS.documents()
TOKENIZER = word_tokenizer([document.text for document in DOCUMENTS])
CLEAN = encode_dataset(DOCUMENTS, TOKENIZER, 64, FACTS.sets, token_spans=True)


def _gist(prob: float, seed: int = 0):
    return augment_examples(CLEAN, [GistMask(prob)], seed)


def _rows(data) -> list[dict]:
    return data.__getitems__(range(len(data)))


def test_all_of_a_span_but_its_last_token_is_hidden_from_what_follows():
    assert hidden_in([[2, 5], [7, 8], [9, 11]]) == [(2, 4, 5), (9, 10, 11)]
    for document, row in zip(DOCUMENTS, _rows(_gist(1.0)), strict=True):
        words = [document.text[start:end].split() for start, end in sorted(document.spans)]
        read = [TOKENIZER.decode(row["input_ids"][first:stop]).split() for first, stop, _ in row["hidden"]]
        assert read == [span[:-1] for span in words if len(span) > 1]
        assert all(since == stop + 1 for _, stop, since in row["hidden"])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_documents_in_every_epoch_others_and_nothing_else_changes(share):
    data = augment_examples(CLEAN, [AnswerNoise(0.5), GistMask(share)], seed=3)
    drawn = [bool(row["hidden"]) for row in _rows(data)]
    assert sum(drawn) / len(drawn) == pytest.approx(share, abs=4 * (share * (1 - share) / len(drawn)) ** 0.5)
    dropped = _rows(augment_examples(CLEAN, [AnswerNoise(0.5)], seed=3))
    assert [{**row, "hidden": 0} for row in _rows(data)] == [{**row, "hidden": 0} for row in dropped]
    assert data.__getitems__([5, 2, 9])[1] == data[2]
    data.set_epoch(1)
    assert ([bool(row["hidden"]) for row in _rows(data)] != drawn) == (0 < share < 1)


def _naive(segments: list[int], hidden: list[list[int]]) -> list[list[bool]]:
    length = range(len(segments))
    return [
        [
            segments[q] == segments[k]
            and k <= q
            and not any(first <= k < stop and q >= since for first, stop, since in hidden if first >= 0)
            for k in length
        ]
        for q in length
    ]


@pytest.mark.parametrize("row_length", [None, 96])
def test_the_mask_is_the_equation(row_length):
    collator = Collator(TOKENIZER.pad_token_id, FACTS.sets, row_length=row_length)
    batch = collator(_gist(0.6).__getitems__(list(range(0, 60, 5))))["latent"]
    table = seen(batch["segments"], batch["hidden"])
    for segments, hidden, got in zip(batch["segments"].tolist(), batch["hidden"].tolist(), table[:, 0], strict=True):
        assert got.tolist() == _naive(segments, hidden)
    numbers = as_attention_mask(table, "eager", torch.bfloat16)
    assert numbers.dtype == torch.bfloat16
    assert torch.equal(numbers == 0, table)
    assert as_attention_mask(table, "sdpa", torch.float32) is table
    with pytest.raises(ValueError, match="reads no mask"):
        as_attention_mask(table, "flash_attention_2", torch.float32)


def test_every_packing_hides_the_same():
    examples = _gist(1.0).__getitems__(list(range(0, 60, 5)))
    ids = {}
    for packing in ("packed", "none"):
        batch = Collator(TOKENIZER.pad_token_id, ("source_last", "target_ids"), packing)(examples)
        found = zip(batch["input_ids"], batch["latent"]["hidden"], strict=True)
        ids[packing] = [row[first:stop].tolist() for row, parts in found for first, stop, _ in parts if first >= 0]
    assert ids["packed"] == ids["none"]
    assert any(ids["none"])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("packing", ["packed", "none"])
def test_later_logits_depend_on_what_is_hidden_only_by_way_of_the_end_of_the_span(implementation, packing):
    model = attach(vocab_size=len(TOKENIZER), attn_implementation=implementation).eval()
    assert model.config._attn_implementation == implementation
    examples = _gist(1.0).__getitems__([0, 70, 200, 300])
    batch = Collator(TOKENIZER.pad_token_id, ("source_last", "target_ids"), packing)(examples)
    latent, ids = batch["latent"], batch["input_ids"]
    # what was hidden is now hidden from the end of its span, too: then nothing is left of it
    blind = torch.where(latent["hidden"] >= 0, latent["hidden"] - torch.tensor([0, 0, 1]), -1)
    place = torch.arange(ids.shape[1])
    inside = ((place >= blind[..., :1]) & (place < blind[..., 1:2])).any(1)
    read = {key: batch[key] for key in ("position_ids", "attention_mask") if key in batch}

    def logits(ids, hidden):
        with torch.no_grad():
            return model(input_ids=ids, latent={**latent, "hidden": hidden}, **read).logits[~inside]

    other = torch.where(inside, (ids + 1) % len(TOKENIZER), ids)
    assert (logits(ids, blind) - logits(other, blind)).abs().max() < 1e-5
    assert (logits(ids, latent["hidden"]) - logits(other, latent["hidden"])).abs().max() > 1e-3  # by way of the end


def test_the_two_attentions_agree_and_hiding_nothing_changes_nothing():
    examples = _gist(0.5).__getitems__([0, 70, 200, 300])
    batch = Collator(TOKENIZER.pad_token_id, FACTS.sets)(examples)
    out = {}
    for implementation in ("sdpa", "eager"):
        model = attach(vocab_size=len(TOKENIZER), attn_implementation=implementation).eval()
        with torch.no_grad():
            out[implementation] = model(**batch).logits
            nothing = {**batch["latent"], "hidden": torch.full((len(batch["input_ids"]), 1, 3), -1)}
            plain = {key: value for key, value in batch["latent"].items() if key != "hidden"}
            real = batch["latent"]["segments"] >= 0
            torch.testing.assert_close(
                model(**{**batch, "latent": nothing}).logits[real], model(**{**batch, "latent": plain}).logits[real]
            )
    torch.testing.assert_close(out["sdpa"][real], out["eager"][real])


KEEP = ["llama", "gpt2", "gpt_neox", "gemma3_text", "mistral", "phi3", "qwen3", "mixtral", "bert"]


@pytest.mark.parametrize("family", [*KEEP, "bloom", "falcon_h1", "lfm2", "mamba", "opt", "rwkv", "zamba2"])
def test_a_model_that_ignores_the_mask_is_found(family):
    ids = torch.arange(24).reshape(2, 12) % 20 + 3
    assert sees_hidden(attach(family), ids) is (family not in KEEP)


def test_data_in_which_nothing_can_be_hidden_are_refused():
    with pytest.raises(ValueError, match="gist_mask: no document has a span of two tokens"):
        augment_examples(encode_dataset([Document("a b", [(0, 1)])], TOKENIZER, 8, token_spans=True), [GistMask()], 0)


@pytest.mark.parametrize(
    ("recipe", "override", "line"),
    [
        (
            "reversal",
            ["data.augment=[{kind: gist_mask, prob: 1.5}]"],
            "gist_mask: prob 1.5 is a share; set it to 0 - 1",
        ),
        (
            "reversal",
            ["data.augment=[gist_mask]", "data.packing=padding_free"],
            "packing padding_free has none; use packed",
        ),
        ("grpo", ["data.augment=[gist_mask]"], "data.augment: grpo reads what it has written itself"),
        (
            "reversal",
            ["data.augment=[gist_mask]", "model.attn_implementation=flash_attention_2"],
            "data.augment: gist_mask needs a mask, model.attn_implementation flash_attention_2 reads none",
        ),
    ],
)
def test_a_recipe_that_cannot_have_it_says_so(recipe, override, line):
    with pytest.raises(ConfigError) as error:
        load_recipe(recipe, override)
    assert line in str(error.value)
