import json

import numpy as np
import pytest
import torch
from latentlm_evals.coherence import Options, run, table
from latentlm_evals.coherence.noun_concepts import Nouns
from latentlm_evals.coherence.stimuli import CATEGORIES, CONTEXTS, countries, mentions, numbers, sentences, swaps
from latentlm_evals.models.interventions import Lens
from latentlm_evals.models.text_encoder import load_encoder
from latentlm_evals.probes.pca import Space
from rich.console import Console
from tiny_models import build

from latentlm.config.schema import ConfigError, parse
from latentlm.data import bpe_tokenizer, word_tokenizer
from latentlm.result import Result

SMALL = Options(depths=("1/2",), nouns=3, entities=15, pairs=2, updates=2, components=8, sections=("stability",))


def all_texts():
    moved = [text for row in [*sentences(), *swaps(), *numbers()] for text in row.texts.values()]
    facts = [f"The capital of {a} is {b}. People say that the {c} {b} is the capital of" for a, b, c in countries()]
    return [f"{row.text}, a kind of that is are {' '.join(CATEGORIES)}" for row in mentions()] + moved + facts


def save(folder, tokenizer, kind="llama", room=128):
    torch.manual_seed(0)
    build(kind, vocab_size=len(tokenizer), max_position_embeddings=room).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tiny"), word_tokenizer(all_texts()))


@pytest.fixture(scope="module")
def lens(folder):
    return Lens(load_encoder(folder, "cpu"), batch_size=7)


def test_the_sentences_are_what_they_say():
    rows = mentions(seed=3, nouns=6)
    assert rows == mentions(seed=3, nouns=6) != mentions(seed=4, nouns=6)
    for row in rows:
        assert row.text[slice(*row.span)] == row.noun + "s" * row.number
        assert row.text.endswith(row.text[slice(*row.span)])
    assert not {row.noun for row in rows if row.is_test} & {row.noun for row in rows if not row.is_test}
    for half in (False, True):  # every family has every value equally often: chance is 1 / classes
        for context in range(len(CONTEXTS)):
            here = [row for row in rows if row.is_test is half and row.context == context]
            assert len(set(np.bincount([row.category for row in here]))) == 1
            assert len(set(np.bincount([row.number for row in here]))) == 1


@pytest.mark.parametrize("make", [sentences, swaps])
def test_transformed_sentences_are_new_in_the_test_half(make):
    rows = make(0, 30)
    assert {row.texts["plain"] for row in rows if row.is_test}.isdisjoint(
        row.texts["plain"] for row in rows if not row.is_test
    )
    assert all(len(set(row.texts.values())) == len(row.texts) for row in rows)


def test_a_patched_state_is_the_state_of_the_other_text(lens):
    texts, spans = ["The cats", "The dogs"], [(4, 8), (4, 8)]
    plain, states = lens.next_token(texts), lens.states(texts, [2], spans)[:, 0]
    swapped = torch.from_numpy(states[::-1].copy())
    new = lens.next_token(texts, 2, spans, lambda old, rows: swapped[rows].to(old))
    # the noun is the last token and the words before it are equal: what follows is decided by the exchanged state
    # and by the two lower blocks' view of "The", which is the same
    torch.testing.assert_close(new, plain.flip(0), atol=1e-4, rtol=1e-4)
    same = lens.next_token(texts, 2, spans, lambda old, rows: old)
    torch.testing.assert_close(same, plain)


def test_log_probs_are_the_sum_over_the_answer(lens):
    prompts, answers = ["The capital of France is", "Paris is the capital of"], ["Paris", "France"]
    for value, prompt, answer in zip(lens.log_prob(prompts, answers), prompts, answers, strict=True):
        token = lens.first_token(answer)
        assert value.item() == pytest.approx(float(lens.next_token([prompt])[0, token]), rel=1e-4)


def test_noise_is_taken_back(lens):
    before = lens.next_token(["The cats"])
    with lens.noisy(0.5, 0):
        assert not torch.equal(lens.next_token(["The cats"]), before)
    assert torch.equal(lens.next_token(["The cats"]), before)


def test_the_space_goes_back_where_it_came_from():
    draw = np.random.default_rng(0)
    states = draw.standard_normal((50, 6)) * np.array([100, 1, 1, 0.1, 1, 0]) + 3
    space = Space.fit(states, 6)
    np.testing.assert_allclose(space.back(space(states) - space(states[:1])), states - states[:1], atol=1e-8)
    weights = draw.standard_normal((2, 6))
    np.testing.assert_allclose((states - space.mean) @ space.readout(weights).T, space(states) @ weights.T, atol=1e-8)


def test_shuffled_labels_stay_with_their_noun():
    rows = mentions(nouns=4)
    nouns = Nouns(rows, np.random.default_rng(0).standard_normal((len(rows), 8)), 4, 0)
    labels = nouns.labels("category", shuffled=True)
    assert (labels != nouns.labels("category")).any()
    for key in {(row.noun, row.number) for row in rows}:
        assert len({v for row, v in zip(rows, labels, strict=True) if (row.noun, row.number) == key}) == 1


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    every = Options.__dataclass_fields__["sections"].default
    out = tmp_path_factory.mktemp("out") / "result.json"
    options = Options(depths=("1/2",), nouns=3, entities=15, pairs=2, updates=2, components=8, out=str(out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("latentlm_evals.coherence.fact_pairs.STEPS", 3)
        return run(folder, options), json.loads(out.read_text()), every


def test_every_section_has_scores_nulls_and_a_table(whole):
    scored, written, sections = whole
    result = scored.to_lm_eval()
    assert written == result
    assert {task.split("/")[1] for task in result["results"]} == set(sections)
    stable = result["results"]["coherence/stability/category@2"]
    assert {"within,none", "within_shuffled,none", "within_random,none", "fracture_random,none"} <= set(stable)
    for row in result["results"].values():  # never a silent gap: what is null is explained
        assert all(value is None or np.isfinite(value) for key, value in row.items() if key != "alias")
    if any(value is None for row in result["results"].values() for value in row.values()):
        assert result["warnings"]
    views = table({"tiny": scored, "again": scored})
    console = Console(width=200, record=True)
    for view in views:
        console.print(view)
    text = console.export_text()
    assert "Coherence: stability" in text
    assert "fracture" in text


def test_the_result_says_what_the_transfer_matrices_are_of_and_what_was_read(whole):
    result = whole[0].to_lm_eval()
    assert result["contexts"] == [context.name for context in CONTEXTS]
    assert all(np.shape(matrix) == (len(CONTEXTS),) * 2 for matrix in result["transfer"].values())
    assert set(result["n-samples"]) == set(result["results"]) == set(result["versions"])
    # 6 categories x 3 nouns x 6 contexts x 2 templates x 2 numbers
    assert result["n-samples"]["coherence/stability/number@2"] == {"original": 432, "effective": 18}
    assert result["n-samples"]["coherence/equivariance/swap@2"]["effective"] == 21  # couples, in both orders
    assert result["n-samples"]["coherence/binding/capital@2"] == {"original": 45, "effective": 15}
    assert result["n-samples"]["coherence/coupling/capital"] == {"original": 2, "effective": 2}


def test_headline_scores_have_intervals_around_them(whole):
    result = whole[0].to_lm_eval()
    rows = result["results"]
    for task, name in (
        ("stability/category@2", "within"),
        ("stability/category@2", "fracture"),
        ("equivariance/past@2", "eq_gain"),
        ("binding/capital@2", "rc_id"),
        ("binding/capital@2", "rc_lin"),
        ("binding/capital@2", "u"),
        ("coupling/capital", "t"),
        ("detail/number@2", "joint"),
    ):
        row = rows[f"coherence/{task}"]
        value, low, high = (row[f"{name}{end},none"] for end in ("", "_low", "_high"))
        assert low <= value <= high, (task, name)
        assert f"{name}_low_random,none" not in row
        assert f"{name}_low" not in result["higher_is_better"][f"coherence/{task}"]


@pytest.mark.parametrize("section", Options.__dataclass_fields__["sections"].default)
def test_each_section_can_be_asked_alone(folder, section, monkeypatch):
    monkeypatch.setattr("latentlm_evals.coherence.fact_pairs.STEPS", 3)
    options = Options(depths=("1/2",), nouns=3, entities=15, pairs=2, updates=2, sections=(section,), random_init=False)
    result = run(folder, options).to_lm_eval()
    assert {task.split("/")[1] for task in result["results"]} == {section}
    assert not any("unknown_words" in note for note in result["warnings"])


def test_the_table_shows_intervals_and_the_null_of_u():
    row = {"u": 0.123, "u_low": -0.5, "u_high": 0.75, "u_null_sd": 0.141, "u_random": 0.35, "rc_lin": 0.3}
    row |= {"rc_lin_low": 0.25, "rc_lin_high": 0.34, "rc_lin_shuffled": 0.1, "eq": 1.0, "gap": None, "t": -0.004}
    rows = {"coherence/binding/x@2": {"alias": "x"} | {f"{key},none": value for key, value in row.items()}}
    result = Result.from_lm_eval({"results": rows}, "x")
    console = Console(width=200, record=True)
    console.print(table({"run": result})[0])
    text = console.export_text()
    assert ".12 [-.50, .75] (±.14 | .35)" in text
    assert ".30 [.25, .34] (.10 | -)" in text
    assert "u_low" not in text


def test_words_the_model_does_not_know_are_said(tmp_path):
    name = save(tmp_path, word_tokenizer(["nothing of this is in the sentences"]))
    every = Options(depths=("1/2",), random_init=False)
    with pytest.raises(ValueError, match="nothing of what was asked for can be measured") as error:
        run(name, every)
    told = str(error.value)
    assert "\n" not in told
    assert all(section in told for section in every.sections)
    assert told.count("unknown_words") == 5  # nouns, three kinds of sentences, countries
    with pytest.raises(ValueError, match="binding and coupling of capital: unknown_words") as error:
        run(name, Options(sections=("binding", "coupling"), random_init=False))
    assert "stability" not in str(error.value)


def test_a_model_that_reads_too_little_is_told_so_and_asked_the_rest(tmp_path):
    name = save(tmp_path, word_tokenizer(all_texts()), room=8)
    result = run(
        name, Options(depths=("1/2",), entities=15, sections=("stability", "binding"), random_init=False)
    ).to_lm_eval()
    assert {task.split("/")[1] for task in result["results"]} == {"binding"}
    assert "stability: too_short: the sentences have up to" in result["warnings"][0]
    assert "the model reads 8" in result["warnings"][0]
    with pytest.raises(ValueError, match=r"nothing of what was asked for .* ask a model that reads more"):
        run(name, SMALL)


def test_bad_input_is_one_line(tmp_path, folder):
    for data, match in (
        ({"nouns": 2}, "nouns: 2 is too few"),
        ({"depths": [0]}, "input of the first block"),
        ({"section": ["units"]}, "did you mean 'sections'"),
        ({"sections": ["unit"]}, "did you mean 'units'"),
        ({"sections": []}, "sections: empty"),
        ({"noise": 0}, "noise"),
    ):
        with pytest.raises(ConfigError, match=match):
            parse(Options, data)
    encoder = load_encoder(folder, "cpu")
    with torch.no_grad():
        next(encoder.model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="diverged"):
        Lens(encoder).states(["The cats"], [1], [(4, 8)])
    from transformers import BertConfig, BertModel

    tokenizer = bpe_tokenizer(["some text"], 300)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=300, **shape)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="not a causal language model"):
        run(str(tmp_path / "bert"), SMALL)
