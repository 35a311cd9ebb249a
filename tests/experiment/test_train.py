"""A run from the command line: what it leaves behind, and that stopping it changes nothing."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from run_cli import FEW, TINY, latentlm
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from latentlm.experiment import callbacks
from latentlm.experiment.recipe import load_recipe
from latentlm.trainers.checkpoints import newest_whole

TEXTS = ["Paris is the capital of France.", "Water boils at 100 degrees.", "The quick brown fox jumps."]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def train(*words: str, code: int = 0) -> str:
    told = latentlm("train", *words)
    assert told.code == code, told
    return told.err


def metrics(run: str) -> list[dict]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path(run, "model/model.safetensors"))


def break_off(monkeypatch, step, action):
    """The next run meets `action` behind this step."""

    class Lines(callbacks.Lines):
        def on_step_end(self, args, state, control, **kwargs):
            super().on_step_end(args, state, control, **kwargs)
            if state.global_step == step:
                action()

    monkeypatch.setattr("latentlm.experiment.train.Lines", Lines)


def test_what_a_run_leaves_behind():
    told = train(
        "smoke_text",
        "training.output_dir=deep/run",
        "training.max_steps=6",
        "training.logging_steps=4",
        "training.save_strategy=no",
    )
    run = Path("deep/run")
    assert told.startswith("training 0.0")
    assert "step 6/6  loss " in told
    assert " + predict_target_from_source " in told
    assert [row["step"] for row in metrics("deep/run")] == [1, 4, 6]
    assert all(
        f"{term}/value" in metrics("deep/run")[0]
        for term in ("data", "predict_target_from_source", "ladder/1_to_2", "slow")
    )
    saved = yaml.safe_load((run / "recipe.yaml").read_text())
    assert saved["training"]["max_steps"] == 6
    assert "resume_from_checkpoint" not in saved["training"]
    facts = json.loads((run / "run.json").read_text())
    assert facts["command"].startswith("latentlm train smoke_text training.output_dir=deep/run")
    assert {"torch", "transformers"} < facts["versions"].keys()
    assert facts["seconds"] > 0
    assert len(json.loads((run / "depth.json").read_text())["rank"]) == 3
    AutoModelForCausalLM.from_pretrained(run / "model")
    assert AutoTokenizer.from_pretrained(run / "model").pad_token == "<pad>"


def test_the_shares_of_the_terms_add_up_to_the_loss():
    train("smoke_text", "training.output_dir=run", "training.max_steps=3")
    for row in metrics("run"):
        parts = [value for key, value in row.items() if key.endswith("/weighted")]
        assert row["data/value"] + sum(parts) == pytest.approx(row["loss"], abs=1e-4)


@pytest.mark.slow
def test_interrupted_and_killed_runs_end_like_one_that_went_through(monkeypatch):
    same = ["smoke_text", "training.max_steps=14", "training.save_steps=4"]
    handler = signal.getsignal(signal.SIGINT)
    train(*same, "training.output_dir=straight")
    with monkeypatch.context() as patch:
        break_off(patch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        told = train(*same, "training.output_dir=broken", code=130)
    assert "stopping after this step; press Ctrl-C again" in told
    assert (
        told.splitlines()[-1]
        == "latentlm: stopped at step 6; continue with: latentlm train broken training.resume_from_checkpoint=true"
    )
    assert newest_whole(Path("broken/checkpoints"))[0] == Path("broken/checkpoints/checkpoint-6")
    assert signal.getsignal(signal.SIGINT) is handler

    class Killed(BaseException):
        """Leaves no time to tidy up, like SIGKILL."""

    def kill():
        raise Killed

    with monkeypatch.context() as patch:
        break_off(patch, 11, kill)
        with pytest.raises(Killed):
            latentlm("train", "broken", "training.resume_from_checkpoint=true")
    torn = Path("broken/checkpoints/checkpoint-10")  # killed while it wrote
    torn.mkdir(exist_ok=True)
    (torn / "trainer_state.json").write_text('{"global_')
    assert newest_whole(Path("broken/checkpoints"))[0] == Path("broken/checkpoints/checkpoint-8")
    with Path("broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')
    assert "from step 8 in broken" in train("broken", "training.resume_from_checkpoint=true")
    assert [row["step"] for row in metrics("broken")] == list(range(1, 15))
    assert metrics("straight") == metrics("broken")
    assert [row["step"] for row in metrics("broken") if "monitor/slow/rank" in row] == [1, 6, 11]
    ours, theirs = weights("broken"), weights("straight")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "broken is finished; nothing to do" in train("broken", "training.resume_from_checkpoint=true")


@pytest.mark.slow
def test_dropped_words_and_hidden_ones_go_on_where_they_were(monkeypatch):
    same = [
        "smoke_text",
        FEW,
        "training.per_device_train_batch_size=8",
        "data.augment=[{kind: answer_noise, rate: 0.5}, {kind: gist_mask, prob: 0.5}]",
        "training.max_steps=11",
        "training.save_steps=4",
    ]
    train(*same, "training.output_dir=straight")
    with monkeypatch.context() as patch:
        break_off(patch, 9, lambda: os.kill(os.getpid(), signal.SIGINT))  # 6 steps are a pass over the data
        train(*same, "training.output_dir=broken", code=130)
    train("broken", "training.resume_from_checkpoint=true")
    assert metrics("straight") == metrics("broken")
    train(*same, "training.output_dir=clean", "data.augment=[]")
    assert metrics("clean")[0] != metrics("straight")[0]


def test_resuming_refuses_another_recipe_and_takes_more_steps():
    train("smoke_text", "training.output_dir=run", "training.max_steps=4", "training.save_steps=2")
    told = train("run", "training.resume_from_checkpoint=true", "training.learning_rate=1", code=2)
    assert "training.resume_from_checkpoint: run was made with training.learning_rate 0.003, not 1" in told
    assert told.endswith("; use another training.output_dir=PATH\n")
    told = train("nitp", "training.output_dir=run", "training.resume_from_checkpoint=true", code=2)
    assert "resume_from_checkpoint: run was made with another objective.terms.predict_target_from_source; use" in told
    told = train("run", "training.resume_from_checkpoint=true", "training.max_steps=3", code=2)
    assert told == "latentlm: training.max_steps: 3, but run is at step 4; set it higher\n"
    assert "training.output_dir: run already holds a run" in train("run", code=2)
    origin = json.loads(Path("run/run.json").read_text())
    assert "earlier_commits" not in origin
    Path("run/run.json").write_text(json.dumps(origin | {"commit": "0ld"}))  # begun by other code
    train("run", "training.resume_from_checkpoint=true", "training.max_steps=6", "training.logging_steps=3")
    assert [row["step"] for row in metrics("run")] == [1, 2, 3, 4, 6]
    now = json.loads(Path("run/run.json").read_text())
    assert (now["commit"], now["earlier_commits"]) == (origin["commit"], ["0ld"])
    assert not (Path("run") / "checkpoints" / "checkpoint-2").exists()  # training.save_total_limit


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_second_signal_stops_at_once():
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            sys.stderr = os.fdopen(writing, "w", encoding="utf-8", buffering=1)
            with callbacks.Interrupt() as interrupt:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
                assert interrupt.pressed
                interrupt.since -= 2
                os.kill(os.getpid(), signal.SIGTERM)
        finally:  # whatever happens, not on into the tests of the parent
            os._exit(1)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        assert told.read().count("stopping after this step") == 1
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize(
    "words",
    [
        ["model.lora.r=4"],
        ["model.dtype=bfloat16"],
        ["data.packing=none"],
        ["training.per_device_train_batch_size=3", "training.gradient_accumulation_steps=2"],
        ["training.gradient_checkpointing=true"],
        ["training.report_to=[tensorboard]"],
        ["model.config={model_type: gpt2, n_embd: 32, n_layer: 2, n_head: 2, n_positions: 64}"],
        ["model.config={model_type: mamba, hidden_size: 32, num_hidden_layers: 2, state_size: 8}", "data.packing=none"],
        pytest.param(["training.bf16=true"], marks=pytest.mark.slow),
        pytest.param(["data.row_length=96"], marks=pytest.mark.slow),
        pytest.param(
            ["training.lr_scheduler_type=constant_with_warmup", "training.warmup_steps=2"], marks=pytest.mark.slow
        ),
        pytest.param(
            [
                "data.source.kind=facts",
                "data.source.num_a_to_b=4",
                "data.source.num_b_to_a=0",
                "data.source.num_both=4",
                "model.tokenizer.kind=bpe",
            ],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: words[0].split(":")[0],
)
@pytest.mark.filterwarnings("ignore:gradient_accumulation_steps=2")  # said of losses that need the whole batch
def test_settings_train_and_export(words):
    train("smoke_text", "training.output_dir=run", "training.max_steps=2", *words)
    rows = metrics("run")
    assert all(torch.tensor(value).isfinite() for row in rows for key, value in row.items() if key.endswith("loss"))
    assert any(Path("run/tensorboard").glob("*")) == ("training.report_to=[tensorboard]" in words)
    assert latentlm("export", "run", "plain", *(["--merge"] if "lora" in words[0] else [])).code == 0
    assert not any("lora" in name or "latent" in name for name in load_file("plain/model.safetensors"))
    AutoModelForCausalLM.from_pretrained("plain")


@pytest.mark.filterwarnings("ignore:run.model. holds trained latent heads")  # only its network is wanted
def test_texts_and_conversations_from_local_files(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]} for text in TEXTS
    ]
    Path("chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("texts.txt").write_text("\n".join(TEXTS))
    bpe = ["model.tokenizer.kind=bpe", "model.tokenizer.vocab_size=300"]
    tiny = [TINY.replace("embeddings: 64", "embeddings: 256"), "training.max_steps=2"]
    train("nitp", *tiny, *bpe, "data.source=texts.txt", "training.output_dir=run")
    train("nitp", *tiny, *bpe, "data.source=chat.jsonl", "training.output_dir=fitted")  # with a template of its own
    chats = ["model.name=run/model", "data.source=chat.jsonl", "training.output_dir=chat", *tiny[1:]]
    told = train("nitp", *chats, code=2)
    assert "tokenizer: it has no chat template for messages" in told
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>\n{% endfor %}"
    tokenizer = AutoTokenizer.from_pretrained("run/model")
    tokenizer.chat_template = template
    tokenizer.pad_token = None
    tokenizer.save_pretrained("run/model")
    train("nitp", *chats)
    assert AutoTokenizer.from_pretrained("chat/model").pad_token == "<eos>"  # it had none


def test_a_pretrained_folder_goes_on_from_its_weights():
    train("next_token", TINY, FEW, "training.max_steps=2", "training.output_dir=first")
    train(
        "nitp",
        FEW,
        "model.name=first/model",
        "training.max_steps=1",
        "training.learning_rate=1e-12",
        "training.output_dir=second",
    )
    before, after = weights("first"), weights("second")
    plain = [name for name in before if not name.startswith("latent.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in plain)
    assert any(name.startswith("latent.") for name in after.keys() - before.keys())


@pytest.mark.parametrize("tied", [False, True])
def test_what_lies_above_the_trained_depth_stays_bit_for_bit(tied):
    network = [TINY.replace("tie_word_embeddings: true", f"tie_word_embeddings: {str(tied).lower()}"), FEW]
    train("next_token", *network, "training.max_steps=1", "training.output_dir=first")
    train(
        "nitp",
        FEW,
        "model.name=first/model",
        "training.max_steps=3",
        "model.freeze_above=1/2",
        "training.output_dir=second",
    )
    before, after = weights("first"), weights("second")
    last = max(int(name.split(".")[2]) for name in before if name.startswith("model.layers."))
    held = {name for name in before if name.startswith((f"model.layers.{last}.", "model.norm", "lm_head"))}
    assert len(held) == 11 - tied
    assert {name for name in before if torch.equal(before[name], after[name])} == held


def test_a_moved_run_and_default_places():
    assert load_recipe("nitp").training["output_dir"] == "runs/nitp"
    train("smoke_text", "training.max_steps=1", "training.seed=3")
    Path("runs/smoke_text").rename("moved")
    assert load_recipe("moved", ["training.resume_from_checkpoint=true"]).training["output_dir"] == "moved"
    assert load_recipe("moved").training["output_dir"] == "runs/smoke_text"
    assert (
        load_recipe("moved", ["training.resume_from_checkpoint=true", "training.output_dir=else"]).training[
            "output_dir"
        ]
        == "else"
    )
    Path("own.yaml").write_text(
        Path("moved/recipe.yaml").read_text().replace("output_dir: runs/smoke_text", "output_dir: null")
    )
    assert load_recipe("own.yaml").training["output_dir"] == "runs/own"
    assert load_recipe("own.yaml", ["training.output_dir=~/runs/x"]).training["output_dir"] == str(
        Path.home() / "runs/x"
    )


def test_a_new_kind_drops_the_keys_of_the_old_one():
    words = ["data.source.folder=people", "data.source.kind=name_description", "model.tokenizer.kind=bpe"]
    recipe = load_recipe("smoke_text", words)  # its data have other keys, and its model no tokenizer block
    assert (recipe.source.folder, recipe.model.tokenizer.vocab_size) == ("people", 3000)
    assert load_recipe("smoke_text", ["data.source.kind=facts", "data.source.num_both=3"]).source.num_a_to_b == 8
    assert load_recipe("nitp", ["model.lora=null", "model.lora.r=2"]).model.lora.r == 2
