"""Every mistake is one line that names the key and the fix, exit code 2, and nothing is written."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from run_cli import latentlm
from tiny_models import build

from latentlm import get_latent_model
from latentlm.data import find_spans, word_tokenizer

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256))
NAMES_OTHER = "objective.terms.predict_target_from_source"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.fixture
def no_weights(monkeypatch):
    """Building or loading a network fails the test."""

    def built(*args, **kwargs):
        raise AssertionError("a network was built before the mistake was found")

    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(transformers.AutoModelForCausalLM, name, built)


def refused(*words: str, line: str) -> None:
    before = sorted(Path().rglob("*"))
    told = latentlm(*words)
    assert (told.code, told.out) == (2, ""), told
    assert told.err.startswith("latentlm: ")
    assert told.err.count("\n") == 1, told.err
    assert line in told.err
    assert sorted(Path().rglob("*")) == before


def save_model(path: Path, texts: list[str] | None = None, **special) -> Path:
    build("llama").save_pretrained(path)
    tokenizer = word_tokenizer(texts or ["one two three four"])
    for name, value in special.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(path)
    return path


def write_lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["smoke_txt"], "did you mean 'smoke_text'?"),
        (["text/nitp"], "recipe 'text/nitp' is now 'nitp'"),
        (["smoke_text", "optim.steps=3"], "optim.steps is now training.max_steps"),
        (
            ["nowhere.yaml"],
            "recipe 'nowhere.yaml': no such file and no built-in recipe; known: arithmetic, ",
        ),
        (
            ["smoke_text", "trainin.max_steps=3"],
            "smoke_text: unknown key 'trainin' for Recipe; did you mean 'training'?",
        ),
        (
            ["smoke_text", "training.lerning_rate=3"],
            "unknown key 'lerning_rate' for TrainingArguments; did you mean 'learning_rate'?",
        ),
        (["smoke_text", "training.max_steps"], "override 'training.max_steps': write key.path=value"),
        (["smoke_text", "training.max_steps.x=3"], "'training.max_steps' is not a block"),
        (
            ["smoke_text", f"{NAMES_OTHER}.loss.kind=info_nze"],
            "predict_target_from_source.loss: unknown kind 'info_nze'; did you mean",
        ),
        (["smoke_text", "training.max_steps=many"], "training.max_steps: 'many' is not int"),
        (["smoke_text", "training.max_steps=-3"], "training.max_steps: -3; set it to 1 or more"),
        (["smoke_text", "training.learning_rate=0"], "training.learning_rate: 0; set it above 0"),
        (["smoke_text", "training.learning_rate=.nan"], "training.learning_rate: nan; give a finite number"),
        (["smoke_text", "training.lr_scheduler_type=cosin"], "unknown value 'cosin'; did you mean 'cosine'?"),
        (
            ["smoke_text", "training.per_device_train_batch_size=0"],
            "training.per_device_train_batch_size: 0; set it to 1 or more",
        ),
        (["smoke_text", "data.max_length=1"], "max_length: 1; set it to 2 or more"),
        (["smoke_text", "data.packing=none", "data.row_length=64"], "row_length: goes with packing packed"),
        (["smoke_text", "training.logging_steps=0"], "training.logging_steps: 0; set it above 0"),
        (["smoke_text", "training.report_to=[tensorbord]"], "did you mean 'tensorboard'?"),
        (["smoke_text", "model.lora.r=0"], "smoke_text.model.lora: r: 0; set it to 1 or more"),
        (
            ["smoke_text", f"{NAMES_OTHER}.source.at=span_ends"],
            "facts data give no 'span_ends'; known: before_target",
        ),
        (["mae", "data.span_pairs.kind=phrases"], "mae.data: unknown key 'span_pairs' for Images"),
        (["nitp", "data.source=x.jsonl"], "nitp: needs a model; give model.name=NAME"),
        (["nitp", "model.name=some/model"], "nitp: needs data; give data.source=FILE"),
        (["own/model", "model.name=some/model"], "recipe 'own/model': no such file and no built-in recipe"),
        (
            ["smoke_text", f"{NAMES_OTHER}.source.depth=block 9"],
            f"{NAMES_OTHER}: depth block 9: the model has 2 blocks; use 0..2",
        ),
        (["smoke_text", "model.config.model_type=lama"], "no causal language model 'lama'; did you mean 'llama'?"),
        (["smoke_text", "model.config.model_type=vit"], "no causal language model 'vit'"),
        (
            ["smoke_text", "model.config.hiden_size=32"],
            "unknown key 'hiden_size' for llama; did you mean 'hidden_size'?",
        ),
        (["smoke_text", "model.config.hidden_size=wide"], "model.config: "),
        (["smoke_text", "model.config.hidden_size=-32"], "model.config.hidden_size: -32; set it to 1 or more"),
        (["smoke_text", "model.config.num_hidden_layers=-1"], "model.config.num_hidden_layers: -1; set it to 1"),
        (["smoke_text", "objective.lm_weight=.nan"], "smoke_text.objective.lm_weight: nan; give a finite number"),
        (["smoke_text", "objective.lm_weight=-1"], "lm_weight: -1.0; set it to 0 or more"),
        (["smoke_text", "objective.terms.round.weight=-1"], "weight: -1.0; set it to 0 or more"),
        (["smoke_text", "objective.terms.round.weight=.inf"], "weight: inf; give a finite number"),
        (["smoke_text", "model.config.num_attention_heads=3"], "model.config: "),
        (
            ["smoke_text", "model.freeze_above=block 7"],
            "model.freeze_above: depth block 7: the model has 2 blocks; use 0..2",
        ),
        (["smoke_text", "model.freeze_above=half"], "model: depth 'half': use a fraction from 0 to 1"),
        (["smoke_text", "model.freeze_above=1/2", "model.lora.r=2"], "adapters go where lora.target_modules says"),
        (
            ["smoke_text", "model.name=nobody/nothing"],
            "model.name: nobody/nothing: cannot be loaded",
        ),
        (["smoke_text", "model.name=./nothing"], "model.name: there is no folder ./nothing; check the path"),
        (["nitp", "model=tiny_llama", "data.source=nothing.jsonl"], "data.source: there is no file or folder"),
        (
            ["nitp", "data.source.kind=name_description", "data.source.folder=nothing"],
            "data.source.folder: nothing is not a folder",
        ),
        (["smoke_text", "data.max_length=3"], "max_length: 3 cuts a span of every document; raise it"),
        (["smoke_text", "data.row_length=9"], "data.row_length: 9 is less than the"),
        (["smoke_text", "model.config.max_position_embeddings=9"], "data.max_length: a document has"),
        (["smoke_text", "model.tokenizer.kind=bpe", "model.tokenizer.vocab_size=9"], "model.tokenizer: vocab_size: 9"),
    ],
)
def test_a_recipe_is_refused_before_any_weights(folder, no_weights, words, line):
    refused("train", *words, line=line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"objective: [", "recipe 'own.yaml', line 1: not valid YAML"),
        (b"- a\n- b\n", "recipe 'own.yaml': must be a mapping"),
        (PNG, "recipe 'own.yaml': not valid YAML"),
        (b"objective: {lm_weight: 1.0}\ntrainer: supervised\n", "own.yaml: needs a model; give model.name"),
    ],
)
def test_a_broken_recipe_file(folder, text, line):
    Path("own.yaml").write_bytes(text)
    refused("train", "own.yaml", line=line)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "data.source: cannot read split train of texts.jsonl (it is empty)"),
        (b'{"text": ""}\n', "data.source: all texts of texts.jsonl are blank"),
        (PNG, "data.source: cannot read split train of texts.jsonl (line 1 is not UTF-8 text; save it as UTF-8)"),
        (b'{"text": "a"}\n{"text": "b\n{"text": "c"}\n', "texts.jsonl (line 2 is not JSON); check its format"),
        ('{"text": "grün"}'.encode("latin-1"), "texts.jsonl (line 1 is not UTF-8 text; save it as UTF-8)"),
        (
            b'{"txt": "a"}\n',
            "data.source: texts.jsonl has the columns txt; rename one to text (plain text) or messages",
        ),
        (b'{"text": 4}\n{"text": 3}\n', "data.source: no row of texts.jsonl can be used: row 0: text is not a string"),
    ],
)
def test_a_broken_data_file(folder, no_weights, content, line):
    Path("texts.jsonl").write_bytes(content)
    refused("train", "nitp", "model=tiny_llama", "data.source=texts.jsonl", line=line)


@pytest.mark.parametrize(
    ("spans", "line"),
    [
        ([[0, 1], [5, 99]], "row 0: span [5, 99] is not inside 'one two' of 7 characters"),
        ([[0, 3], [3, 4]], "row 0: span [3, 4] ' ' matches no token; check its offsets"),
        ([[0, 3]], "reads source_last, but no document has two spans; give the documents a column spans, or"),
        ("0-3", "data.source: no row of facts.jsonl can be used: row 0: spans must be a list of [start, end], got 0-3"),
    ],
)
def test_broken_spans(folder, no_weights, spans, line):
    write_lines(Path("facts.jsonl"), {"text": "one two", "spans": spans})
    refused("train", "reversal", "model=tiny_llama", "data.source=facts.jsonl", line=line)


def test_a_span_string_that_occurs_nowhere():
    with pytest.raises(ValueError, match="no span 'six' in the document 'one two'; give a string that occurs in it"):
        find_spans("one two", ["six"])


def test_depth_and_tokenizer_of_a_pretrained_folder(folder, no_weights, monkeypatch):
    monkeypatch.undo()  # saving needs weights
    monkeypatch.chdir(folder)
    save_model(Path("whole"))
    save_model(Path("endless"), eos_token=None)
    build("llama").save_pretrained("mute")
    save_model(Path("cut"))
    os.truncate("cut/tokenizer.json", 100)
    words = ["train", "smoke_text", f"{NAMES_OTHER}.source.depth=block 9"]
    refused(*words, "model.name=whole", line=f"{NAMES_OTHER}: depth block 9: the model has 4 blocks; use 0..4")
    refused("train", "smoke_text", "model.name=endless", line="tokenizer of endless has no eos; set eos_token")
    for name in ("mute", "cut"):
        line = f"model.name: {name} has no tokenizer that can be loaded"
        refused("train", "smoke_text", f"model.name={name}", line=line)


def test_mistakes_that_only_the_network_shows(folder):
    refused("train", "smoke_text", "model.config.vocab_size=9", line="model: 9 embeddings for the")
    refused("train", "smoke_text", "model.layers_path=blocks", line="has no ModuleList at layers_path='blocks'")
    refused("train", "smoke_text", "model.lora.target_modules=[nothing]", line="model.lora: No modules were targeted")
    refused("train", "smoke_text", "model.attn_implementation=nothing", line="model: ")
    mamba = "model.config={model_type: mamba, hidden_size: 32, num_hidden_layers: 2, state_size: 8}"
    refused("train", "smoke_text", mamba, line="data.packing: this model mixes packed segments; use data.packing=none")


def test_run_folders_that_cannot_be_used(folder, no_weights):
    Path("taken").mkdir()
    Path("taken/recipe.yaml").write_text("{}")
    Path("taken/run.json").write_text("{}")
    Path("file").write_text("")
    train = ["train", "smoke_text"]
    refused(
        *train,
        "training.output_dir=taken",
        line="taken already holds a run; use training.resume_from_checkpoint=true or another training.output_dir",
    )
    refused(
        *train,
        "training.output_dir=file",
        line="training.output_dir: file is a file; use another training.output_dir=PATH",
    )
    refused(*train, "training.output_dir=file/below", line="is a file; use another training.output_dir=PATH")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_that_cannot_be_written(folder, no_weights):
    Path("locked").mkdir(mode=0o555)
    refused("train", "smoke_text", "training.output_dir=locked/run", line="training.output_dir: cannot write to")


def test_evaluations_that_cannot_start(folder, no_weights):
    Path("empty").mkdir()
    Path("unfinished").mkdir()
    Path("unfinished/recipe.yaml").write_text("{}")
    refused("eval", "reversl", "empty", line="eval 'reversl': no such evaluation; did you mean 'reversal'?")
    refused("eval", "reversal", "nowhere", line="nowhere: no such run folder")
    refused("eval", "reversal", "empty", line="empty: neither a run folder (recipe.yaml) nor a model")
    refused("eval", "reversal", "unfinished", line="finish it with: latentlm train unfinished training.resume_from")
    refused("eval", "reversal", "a", "b", "out=c", line="out: names one file, but there are several runs")
    refused("eval", "reversal", "a", "b", "samples=c", line="samples: names one file, but there are several runs")
    refused("eval", "reversal", "a", "out=/", line="out: / is a folder; name a file in it")
    Path("taken").touch()
    refused("eval", "reversal", "a", "samples=taken/b/c", line="taken is a file; name one in a folder")
    refused("eval", "reversal", line="eval reversal: name at least one run folder")
    refused("eval", line="Missing argument")
    Path("plain").mkdir()
    Path("plain/config.json").write_text("{}")
    refused("eval", "reversal", "plain", "limt=3", line="limt: no such option; did you mean 'limit'?")
    refused("eval", "reversal", "plain", "limit=many", line="limit: 'many' is not int")
    refused("eval", "reversal", "plain", "limit=0", line="limit: 0 is too few; give at least 1")
    refused("eval", "reversal", "plain", "limit=1", "limit=2", line="limit: given twice")
    refused(
        "eval",
        "reversal",
        "plain",
        line="plain: has no recipe.yaml to take test questions from; give data=RECIPE or suite=NAME",
    )


def test_reports_and_exports_that_cannot_start(folder):
    Path("unfinished").mkdir()
    Path("unfinished/recipe.yaml").write_text("{}")
    refused("report", "unfinished", line="unfinished: has no metrics.jsonl")
    refused("export", "unfinished", "out", line="export: unfinished has no model yet")
    model = build("llama")
    model.save_pretrained("plain")
    refused("export", "plain", "out", line="export: plain holds no model with latent heads")
    get_latent_model(model, "nitp").save_pretrained("heads")
    refused("export", "heads", "plain", line="export: plain is not empty; name a new folder")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile imports torch.jit
def test_models_that_cannot_get_heads():
    wrapped = get_peft_model(build("llama"), LoraConfig(task_type="CAUSAL_LM"))
    compiled = torch.compile(build("llama"))
    for model, line in [
        (wrapped, "PeftModelForCausalLM is wrapped by PEFT: attach before get_peft_model"),
        (compiled, "is already compiled: attach before torch.compile"),
        (torch.nn.Linear(2, 2), "Linear is not a transformers PreTrainedModel"),
        (get_latent_model(build("llama"), "nitp"), "already has"),
    ]:
        with pytest.raises(ValueError, match=line):
            get_latent_model(model, "nitp")
