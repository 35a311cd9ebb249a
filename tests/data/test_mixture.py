"""Mixtures: shares and epochs, terms that read one part only, validation by part, and streams."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from run_cli import TINY, latentlm
from transformers import LlamaConfig, LlamaForCausalLM

from latentlm import get_latent_model
from latentlm.config.schema import ConfigError
from latentlm.data import Collator, Corpus
from latentlm.data.interleave import Mixed, Streamed
from latentlm.data.mixture import Mixture, Part
from latentlm.experiment.build_model import read_config
from latentlm.experiment.mixtures import prepare_data
from latentlm.experiment.recipe import load_recipe


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(number, name):
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": [name, k], "labels": [-100, k]} for k in range(number)])


def texts(name, number, word):
    path = Path(name)
    path.write_text("".join(json.dumps({"text": f"{word} {n} is followed by {n + 1}"}) + "\n" for n in range(number)))
    return name


def metrics(run):
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def test_parts_are_drawn_by_weight_and_every_row_has_its_turn():
    small, large = rows(300, 1), rows(900, 2)
    mixed = Mixed([small, large], [0.5, 0.5], "first_exhausted", seed=0)
    drawn = Counter(mixed.part.tolist())
    assert max(drawn.values()) == pytest.approx(len(mixed) / 2, rel=0.15)
    assert drawn[0] == 300
    seen = Counter()
    for epoch in range(4):
        mixed.set_epoch(epoch)
        found = mixed.__getitems__(range(len(mixed)))
        mine = [row["input_ids"][1] for row in found if row["part"] == 0]
        assert sorted(mine) == list(range(300))  # the small part is whole in every epoch
        assert all(row["input_ids"][0] == row["part"] + 1 for row in found)
        seen.update(row["input_ids"][1] for row in found if row["part"] == 1)
    assert len(seen) == 900  # no row of the large one is left out for ever
    assert [mixed[k] for k in (3, 1)] == mixed.__getitems__([3, 1])
    whole = Mixed([small, large], [0.5, 0.5], "all_exhausted", seed=0)
    assert Counter(whole.part.tolist())[1] >= 900


@pytest.mark.filterwarnings("ignore:a second backward")
def test_a_term_reads_its_part_only():
    """Loss and gradient of the term in a mixed batch are those of the batch without the other part."""
    terms = {
        "next": {
            "kind": "predict",
            "source": {"depth": 1, "norm": "final", "at": "now"},
            "target": {"kind": "online", "tap": {"depth": 1 / 2, "norm": "none", "at": "next"}},
            "loss": {"kind": "mse"},
        },
        "other": {
            "kind": "regularize",
            "source": {"depth": 1, "norm": "final", "at": "last"},
            "loss": {"kind": "variance"},
            "sample_axis": "examples",
        },
    }
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, max_position_embeddings=64, **sizes))
    model = get_latent_model(model, {"lm_weight": 0.0, "terms": terms, "monitor_every": 1})
    model.train()
    draw = torch.Generator().manual_seed(1)
    examples = []
    for k in range(6):
        ids = torch.randint(3, 40, (7 + k,), generator=draw).tolist()
        examples.append({"input_ids": ids, "labels": [-100, *ids[1:]], "part": k % 2})

    def run(chosen, unread, row_length=None):
        model.zero_grad()
        out = model(**Collator(0, row_length=row_length, unread=unread)(chosen))
        out.loss.backward()
        return out.loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    alone = run(examples[::2], {})
    for row_length in (None, 40):
        mixed = run(examples, {1: ["next", "other"]}, row_length)
        assert mixed[0] == pytest.approx(alone[0], rel=1e-4)
        for a, b in zip(mixed[1], alone[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
    every = run(examples, {})
    assert every[0] != pytest.approx(alone[0], rel=1e-4)
    half = run(examples, {1: ["next"]})[0]
    assert half not in (pytest.approx(alone[0], rel=1e-6), pytest.approx(every[0], rel=1e-6))
    only_others = run(examples[1::2], {1: ["next", "other"]})
    assert only_others[0] == 0


@pytest.mark.parametrize("row_length", [None, 40])
def test_a_teacher_runs_only_on_the_rows_that_a_term_reads(row_length):
    """The loss is that of the batch without the other part, and so is the teacher's work."""
    term = {
        "kind": "predict",
        "source": {"depth": 1, "norm": "final", "at": "now"},
        "target": {"kind": "ema", "tap": {"depth": 1, "norm": "final", "at": "next"}},
        "teacher": "random",
        "loss": {"kind": "mse"},
    }
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, max_position_embeddings=64, **sizes))
    model = get_latent_model(model, {"lm_weight": 0.0, "terms": {"next": term}, "monitor_every": 0})
    model.train()
    rows = []

    def count(block, args, kwargs):
        if not torch.is_grad_enabled():
            rows.append(len(args[0] if args else kwargs["hidden_states"]))

    model.model.layers[0].register_forward_pre_hook(count, with_kwargs=True)
    examples = [
        {"input_ids": ids, "labels": [-100, *ids[1:]], "part": k % 3}
        for k, ids in enumerate(torch.arange(3, 35).expand(9, 32).tolist())
    ]

    def run(chosen, unread):
        rows.clear()
        return model(**Collator(0, row_length=row_length, unread=unread)(chosen)).loss.item(), rows[0]

    alone, every = run(examples[::3], {}), run(examples, {})
    mixed = run(examples, {1: ["next"], 2: ["next"]})
    assert (alone[1], every[1], mixed[1]) == (3, 9, 3)
    assert mixed[0] == pytest.approx(alone[0], rel=1e-5)
    assert mixed[0] > 0.1
    others = run([each for each in examples if each["part"]], {1: ["next"], 2: ["next"]})
    assert others == (0, 1)


REPLAY = "{source: b.jsonl, name: replay, terms: [], validation: c.jsonl}"
PARTS = f"data.parts=[{{source: a.jsonl, validation: 0.25}}, {REPLAY}]"


@pytest.mark.filterwarnings("ignore:run/model")  # its heads start again, and that is told
def test_a_mixture_is_trained_and_validated_by_part():
    texts("a.jsonl", 40, "number"), texts("b.jsonl", 60, "word"), texts("c.jsonl", 10, "word")
    words = [TINY, "model.tokenizer={kind: bpe, vocab_size: 280}", "data.kind=mixture", PARTS, "data.weights=[3, 1]",
             "data.max_length=48", "training.max_steps=4", "training.save_strategy=no",
             "training.learning_rate=1e-3"]  # fmt: skip
    done = latentlm("train", "nitp", *words, "training.output_dir=run")
    assert done.code == 0, done.err
    last = [line for line in metrics("run") if "eval_replay_loss" in line or "eval_a_loss" in line]
    told = {key: value for line in last for key, value in line.items()}
    for name in ("a", "replay"):
        assert told[f"eval_{name}_bits_per_byte"] < told[f"eval_{name}_bits_per_token"]
    assert load_recipe("run").source == Corpus("a.jsonl")
    # the part alone, as validation of plain texts, has the same loss
    from latentlm_evals.answers import Options, evaluate
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from latentlm.result import TaskKey

    model, tokenizer = (kind.from_pretrained("run/model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    task = evaluate(model, tokenizer, Options(text="c.jsonl")).tasks[TaskKey("answers", ("text",))]
    assert told["eval_replay_loss"] == pytest.approx(task.value("nats_per_token"), rel=1e-4)
    assert told["eval_replay_bits_per_byte"] == pytest.approx(task.value("bits_per_byte"), rel=1e-4)
    stream = ["data.kind=mixture", "data.parts=[{source: a.jsonl}, {source: b.jsonl, streaming: true, terms: []}]"]
    words = ["model.name=run/model", *stream, "training.save_strategy=no", "training.output_dir=streamed"]
    done = latentlm("train", "nitp", *words, "data.max_length=48", "training.max_steps=3")
    assert done.code == 0, done.err
    assert any("loss" in line for line in metrics("streamed"))
    done = latentlm("train", "nitp", *words, "training.output_dir=other")
    assert (done.code, "training.max_steps: a stream has no length" in done.err) == (2, True), done.err


def test_a_grammar_in_a_mixture_tells_how_far_from_its_entropy_the_network_is():
    grammar = {"kind": "grammar", "depth": 3, "symbols": 4, "rules": 2, "sentences": 64, "held_out": 32}
    parts = [{"source": grammar, "name": "known", "validation": "held_out"}, {"source": grammar | {"seed": 1}}]
    recipe = load_recipe(
        "grammar", [f"data={json.dumps({'kind': 'mixture', 'parts': parts})}", 'model.tokenizer={"kind": "words"}']
    )
    told = prepare_data(recipe, read_config(recipe)).entropy
    alone = load_recipe("grammar", [f"data.source={json.dumps(grammar)}"])
    assert told == {"eval_known": prepare_data(alone, read_config(alone)).entropy["eval"]}
    assert 0 < told["eval_known"] < math.log(4)  # of four symbols


def test_a_stream_gives_the_examples_that_memory_gives():
    from datasets import Dataset

    sources = [rows(30, 1), rows(20, 2)]
    streams = [Dataset.from_dict({"row": range(len(own))}).to_iterable_dataset() for own in sources]
    makers = [lambda batch, own=own: own.__getitems__(batch["row"]) for own in sources]
    made = [
        [(row["part"], *row["input_ids"]) for row in data]
        for data in (
            Streamed(streams, makers, [0.5, 0.5], "all_exhausted", 0),
            Mixed(sources, [0.5, 0.5], "all_exhausted", 0),
        )
    ]
    assert set(made[0]) == set(made[1]) == {(part, part + 1, k) for part, n in ((0, 30), (1, 20)) for k in range(n)}
    assert [part for part, *_ in made[0]] == [part for part, *_ in made[1]]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"parts": ()}, "parts: give at least one source"),
        ({"parts": (Part("a.jsonl"), Part("x/a.jsonl"))}, "parts: two are named 'a'; give them a name each"),
        ({"parts": (Part("a.jsonl"),), "weights": (1.0, 2.0)}, "weights: 2 for 1 parts"),
        ({"parts": (Part("a.jsonl"),), "weights": (0.0,)}, r"weights: \[0.0\]; each must be above 0"),
        ({"parts": (Part("a.jsonl", validation=1.5),)}, r"parts\[0\].validation: 1.5 is a share"),
    ],
)
def test_mistakes_in_a_mixture_are_one_line(data, told):
    with pytest.raises(ValueError, match=told):
        Mixture(**data)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("{source: a.jsonl, terms: [nxt]}", r"data.parts\[0\].terms: no term 'nxt'"),
        ("{source: a.jsonl, terms: []}", "objective.terms.next_implicit: no part of the data has it among its terms"),
        ("{source: {kind: facts}, streaming: true}", "streaming: a generated set is in memory"),
        ("{source: a.jsonl, streaming: true, validation: 0.1}", "validation: a share needs all documents"),
        ("{source: a.jsonl, name: a b}", "name: 'a b'; use letters"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(part, told):
    texts("a.jsonl", 4, "number")
    with pytest.raises(ConfigError, match=told):
        load_recipe("nitp", [TINY, "data.kind=mixture", f"data.parts=[{part}]"])


def test_chats_are_paired_and_replayed_texts_are_not():
    turns = [("user", "what is {}"), ("assistant", "it is {}")]
    chats = [{"messages": [{"role": who, "content": said.format(n)} for who, said in turns]} for n in range(20)]
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    texts("b.jsonl", 20, "word")
    parts = "data.parts=[{source: chats.jsonl, terms: [views]}, {source: b.jsonl, terms: []}]"
    words = [TINY, "data.kind=mixture", parts, "data.max_length=48", "training.max_steps=2", "training.logging_steps=1",
             "training.save_strategy=no", "training.output_dir=run"]  # fmt: skip
    done = latentlm("train", "llm_jepa", *words)
    assert done.code == 0, done.err
    assert any(line.get("views/value", 0) > 0 or any("views" in key for key in line) for line in metrics("run"))
