"""An exported folder is the trained model: same logits bit for bit, no heads, no latentlm, and a card that tells."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel, get_peft_model
from run_cli import FEW, latentlm
from safetensors.torch import load_file
from tiny_models import build, ids
from tiny_trainers import words
from transformers import AutoModel, AutoModelForCausalLM

from latentlm import get_latent_model, latent_lora_config, losses
from latentlm.attach.api import as_objective, from_pretrained
from latentlm.components import targets
from latentlm.data import bpe_tokenizer, word_tokenizer
from latentlm.export.model_card import sources

TINY_LORA = ["model.lora.r=4", "training.max_steps=2", "training.learning_rate=0.1", "training.output_dir=run", FEW]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=ids()).logits


def exported(*words):
    told = latentlm("export", *words)
    assert told.code == 0, told.err


def adapter_of(model):
    """The model with heads under LoRA, every weight of the adapter away from its start."""
    model = get_peft_model(get_latent_model(model, "nitp"), latent_lora_config(r=4, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return model


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft sets it by itself
def test_an_adapter_folder_stays_an_adapter_or_is_merged(name):
    build(name).save_pretrained("base")
    torch.manual_seed(0)
    trained = adapter_of(AutoModelForCausalLM.from_pretrained("base"))
    trained.save_pretrained("heads")
    words().save_pretrained("heads")
    assert any(".latent." in key for key in load_file("heads/adapter_model.safetensors"))
    exported("heads", "kept")
    exported("heads", "whole", "--merge")

    kept = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "kept")
    assert torch.equal(logits(kept), logits(trained))
    assert not torch.equal(logits(kept), logits(build(name)))
    assert not any("latent" in key for key in load_file("kept/adapter_model.safetensors"))
    assert "latent" not in Path("kept/adapter_config.json").read_text()
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained("kept")), logits(kept))  # transformers' own way

    whole, found = AutoModelForCausalLM.from_pretrained("whole", output_loading_info=True)
    assert not any(found.values())
    assert torch.equal(logits(whole), logits(trained.merge_and_unload()))
    assert Path("whole/tokenizer_config.json").exists()
    assert Path("kept/tokenizer_config.json").exists()


def test_a_small_update_survives_a_merge_into_a_base_in_half_precision():
    """bfloat16 has steps larger than most of what a short fine-tuning changes: merged there, it would be gone."""
    build("llama").to(torch.bfloat16).save_pretrained("base")
    model = adapter_of(AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-4)
    model.save_pretrained("adapter")
    exported("adapter", "merged", "--merge")
    exported("adapter", "small", "--merge", "--dtype", "bfloat16")
    base, merged, small = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in ("base", "merged", "small")
    )
    wanted = model.merge_and_unload().state_dict()
    names = [name for name in base if "_proj" in name]
    update, found, rounded = (
        torch.cat([(weights[name] - base[name]).flatten() for name in names]) for weights in (wanted, merged, small)
    )
    assert (found - update).norm() < 1e-3 * update.norm()
    assert (rounded - update).norm() > 0.5 * update.norm()  # so there was something to lose
    assert load_file("small/model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    told = latentlm("export", "adapter", "other", "--merge", "--dtype", "int4")
    assert (told.code, told.err) == (2, "latentlm: --dtype: no int4; known: bfloat16, float16, float32\n")


def test_a_card_says_from_scratch_only_of_what_is():
    get_latent_model(build("llama"), "nitp").save_pretrained("heads")
    exported("heads", "plain")
    card = Path("plain/README.md").read_text()
    assert "from scratch" not in card
    assert "base is not recorded" in card


def test_a_run_with_lora_keeps_its_adapter_and_merges_on_request():
    build("llama", vocab_size=300).save_pretrained("base")
    bpe_tokenizer(["Paris is the capital of France."], 280).save_pretrained("base")
    assert latentlm("train", "nitp", "model.name=./base", *TINY_LORA).code == 0
    exported("run", "kept")
    exported("run", "whole", "--merge")
    trained = PeftModel.from_pretrained(
        get_latent_model(AutoModelForCausalLM.from_pretrained("base"), "nitp"), "run/adapter"
    )
    kept = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base"), "kept")
    assert torch.equal(logits(kept), logits(trained))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained("whole")), logits(from_pretrained("run/model")))
    for card in (ModelCard.load("kept/README.md"), ModelCard.load("whole/README.md")):
        assert yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.S)[1])["training"]["max_steps"] == 2


def test_an_exported_folder_needs_no_latentlm():
    get_latent_model(build("llama"), "nitp").save_pretrained("heads")
    exported("heads", "plain")
    code = (
        "import sys; sys.modules['latentlm'] = None\n"
        "from transformers import AutoModelForCausalLM; import torch\n"
        "out = AutoModelForCausalLM.from_pretrained('plain').eval()(input_ids=torch.load('ids', weights_only=True))\n"
        "torch.save(out.logits.detach(), 'logits')"
    )
    torch.save(ids(), "ids")
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert torch.equal(torch.load("logits", weights_only=True), logits(from_pretrained("heads")))


@pytest.mark.slow
def test_an_exported_vit_needs_no_latentlm_and_comes_with_its_processor():
    told = latentlm("train", "smoke_vision", "training.max_steps=2", "training.output_dir=run")
    assert told.code == 0, told.err
    exported("run", "plain")
    assert not [name for name in load_file("plain/model.safetensors") if "latent" in name]
    code = (
        "import sys; sys.modules['latentlm'] = None\n"
        "from transformers import AutoImageProcessor, AutoModel; import torch; import numpy as np\n"
        "images = [np.full((8, 8, 1), 17 * i, np.uint8) for i in range(5)]\n"
        "pixels = AutoImageProcessor.from_pretrained('plain')(images, return_tensors='pt')['pixel_values']\n"
        "out = AutoModel.from_pretrained('plain').eval()(pixels)\n"
        "torch.save([pixels, out.last_hidden_state.detach()], 'states')"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    pixels, states = torch.load("states", weights_only=True)
    torch.testing.assert_close(pixels[3], torch.full((1, 8, 8), 2 * 51 / 255 - 1))
    with torch.no_grad():
        assert torch.equal(states, from_pretrained("run/model").eval()(pixels).last_hidden_state)
        assert torch.equal(states, AutoModel.from_pretrained("run/model").eval()(pixels).last_hidden_state)
    card = ModelCard.load("plain/README.md").text
    assert 'AutoModel.from_pretrained("THIS_FOLDER")' in card
    assert "AutoModelForCausalLM" not in card


def test_the_card_tells_what_the_run_folder_knows():
    told = latentlm(
        "train",
        "nitp",
        "training.max_steps=3",
        "training.seed=5",
        "training.logging_steps=1",
        "training.output_dir=run",
        FEW,
    )
    assert told.code == 0, told.err
    Path("run/eval").mkdir()
    result = {"results": {"made up": {"exact,none": 0.25, "exact_stderr,none": 0.01, "alias": "x"}}}
    Path("run/eval/reversal.json").write_text(json.dumps(result))
    exported("run", "plain")
    card = ModelCard.load("plain/README.md")
    assert card.data.library_name == "transformers"
    assert "| made up | exact | 0.25 | 0.01 |" in card.text
    last = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])
    facts = json.loads(Path("run/run.json").read_text())
    for known in (
        f"| loss | {last['loss']:.6g} |",
        f"| next_implicit/value | {last['next_implicit/value']:.6g} |",
        f"torch: {facts['versions']['torch']}",
        f"| command | {facts['command']} |",
        "training 5, data 0",
        "eprint = {2605.24956}",
        "title = {NITP: Next Implicit Token Prediction}",
        "eprint = {2006.07733}",  # its cosine
    ):
        assert known in card.text, known
    assert "monitor/" not in card.text.partition("## Recipe")[0]


def test_a_source_is_cited_where_its_part_is_used_and_nowhere_else():
    names = {name for name, _ in sources(as_objective("reversal"))}
    assert names == {"info_nce", "token_embeddings"}
    for part in (losses.SmoothL1(), losses.InfoNce(), targets.Frozen(targets.Tap(1))):
        ((_, text),) = list(sources(part))
        assert "arXiv" in text
        assert "Checked" not in text
        assert "Differs" not in text


def test_exports_that_cannot_be_are_refused_in_one_line():
    get_latent_model(build("llama"), "nitp").save_pretrained("heads")
    adapter_of(build("llama")).save_pretrained("scratch")
    build("llama").save_pretrained("base")
    adapter_of(AutoModelForCausalLM.from_pretrained("base")).save_pretrained("moved")
    refused = {
        ("heads", "out", "--merge"): "export: heads has no adapter to merge; leave out --merge",
        ("scratch", "out"): "export: the base of scratch was made from scratch; export its run with --merge",
        ("nowhere", "out"): "export: nowhere has no model yet",
    }
    for asked, line in refused.items():
        told = latentlm("export", *asked)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert line in told.err
        assert not Path("out").exists()
    config = json.loads(Path("moved/adapter_config.json").read_text()) | {"base_model_name_or_path": "./gone"}
    Path("moved/adapter_config.json").write_text(json.dumps(config))
    assert "export: the base ./gone of moved is not there" in latentlm("export", "moved", "out").err
    Path("moved/adapter_config.json").write_text("{")
    assert "adapter_config.json: is cut short or not JSON" in latentlm("export", "moved", "out").err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # lm-eval's own
def test_lm_eval_runs_an_exported_folder():
    evaluator, tasks = (pytest.importorskip(f"lm_eval.{name}") for name in ("evaluator", "tasks"))
    model = get_latent_model(build("llama"), "nitp")
    model.save_pretrained("heads")
    rows = [
        {"query": "the sky is", "choices": ["blue", "green"], "gold": 0},
        {"query": "grass is", "choices": ["blue sky", "green"], "gold": 1},
    ]
    tokenizer = word_tokenizer(["the sky is blue grass is green"])
    tokenizer.save_pretrained("heads")
    exported("heads", "plain")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"test": str(Path("rows.jsonl").resolve())}
    task = {
        "task": "tiny", "dataset_path": "json", "dataset_kwargs": {"data_files": files},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "query", "doc_to_choice": "choices",
        "doc_to_target": "gold", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(task))
    got = evaluator.simple_evaluate(
        model="hf", model_args={"pretrained": "plain", "device": "cpu", "dtype": "float32"}, tasks=["tiny"],
        task_manager=tasks.TaskManager(include_path=".", include_defaults=False), log_samples=True, bootstrap_iters=0,
    )  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained("plain").eval()
    for sample in got["samples"]["tiny"]:
        row = sample["doc"]
        for choice, response in zip(row["choices"], sample["filtered_resps"], strict=True):
            prompt, answer = (tokenizer(t, return_tensors="pt").input_ids for t in (row["query"], choice))
            with torch.no_grad():
                scores = plain(torch.cat([prompt, answer], 1)).logits.log_softmax(-1)[0, prompt.shape[1] - 1 : -1]
            expected = scores.gather(1, answer[0][:, None]).sum()
            assert float(response[0]) == pytest.approx(float(expected), rel=1e-5)
