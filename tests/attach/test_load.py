"""Weights that do not arrive are refused in one line, wherever weights are read; nothing is drawn at random unsaid."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from attached_models import NEXT_STATE, attach, lora
from latentlm_evals.models.load import load
from run_cli import FEW, latentlm
from safetensors.torch import load_file, save_file
from tiny_models import build
from tiny_trainers import words
from tiny_vits import vit
from transformers import AutoModel, AutoModelForCausalLM, LlamaModel

from latentlm import get_latent_model
from latentlm.attach.api import from_pretrained
from latentlm.backbones.load import load_weights, with_adapter
from latentlm.config.schema import ConfigError

FILE = "model.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def edit(change):
    """Rewrite the weights of the folder net."""
    save_file(change(load_file(f"net/{FILE}")), f"net/{FILE}", metadata={"format": "pt"})


def renamed():
    edit(lambda weights: {f"foo.{name}": weight for name, weight in weights.items()})
    return r"lacks \d+ of the weights of LlamaForCausalLM .*, which would be random; it holds foo\."


def half():
    edit(lambda weights: {name: weight for name, weight in weights.items() if ".layers.3." not in name})
    return r"lacks \d+ of the weights of LlamaForCausalLM \(model.layers.3."


def headless():
    AutoModelForCausalLM.from_pretrained("net").model.save_pretrained("net")
    return r"holds no output head \(lm_head.weight\)"


def cut():
    data = Path("net", FILE).read_bytes()
    Path("net", FILE).write_bytes(data[: len(data) // 2])
    return "its weights cannot be read"


def other_size():
    config = json.loads(Path("net/config.json").read_text())
    Path("net/config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    return (
        r"of its weights have another shape than config.json says \(model.layers.0.mlp.down_proj.weight is \[32, 64\]"
    )


def gone():
    Path("net", FILE).unlink()
    return "net: cannot be loaded"


def pickled():
    gone()
    torch.save({"a": Path("x")}, "net/pytorch_model.bin")
    return "net: its weights cannot be read|net: cannot be loaded"


DAMAGES = [renamed, half, headless, cut, other_size, gone, pickled]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_that_does_not_arrive_is_refused(damage):
    build("llama").save_pretrained("net")
    words().save_pretrained("net")
    line = damage()
    with pytest.raises(ConfigError, match=line) as told:
        load_weights(AutoModelForCausalLM, "net", dtype=torch.float32)
    assert "\n" not in str(told.value)
    with pytest.raises(ValueError, match="net: "):
        load("net")
    told = latentlm("train", "nitp", FEW, "model.name=./net", "training.output_dir=run")
    assert (told.code, told.err.count("\n")) == (2, 1), told.err
    assert "net: " in told.err
    assert not Path("run").exists()


@pytest.mark.parametrize("damage", [half, cut, other_size])
def test_a_model_with_heads_that_does_not_arrive_is_refused(damage):
    attach(terms={"a": NEXT_STATE}).save_pretrained("net")
    damage()
    with pytest.raises(ConfigError, match="net: "):
        from_pretrained("net")
    told = latentlm("export", "net", "out")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert not Path("out").exists()


def test_heads_that_do_not_arrive_are_refused():
    attach(terms={"a": NEXT_STATE}).save_pretrained("net")
    edit(lambda weights: {name: w for name, w in weights.items() if "latent.terms" not in name})
    with pytest.raises(ConfigError, match=r"net: lacks \d+ weights of the latent heads"):
        from_pretrained("net")


@pytest.mark.parametrize("old", ["predictors", "assigners"])
def test_heads_of_an_older_version_are_refused(old):
    """By name, before a missing weight is: whoever resumes has to know that the heads cannot be continued."""
    model = attach(terms={"a": NEXT_STATE})
    model.save_pretrained("net")
    edit(
        lambda weights: {name.replace("terms.terms.a.predictor.", f"terms.{old}.a."): w for name, w in weights.items()}
    )
    says = rf"latent heads: '.*terms\.{old}\.a\.network\.\w+' was saved by an older latentlm.*train them again"
    with pytest.raises(ConfigError, match=says):
        from_pretrained("net")
    with pytest.raises(ConfigError, match=says):
        model.load_state_dict(load_file(f"net/{FILE}"), strict=False)


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_whole_is_loaded_in_the_type_that_was_named(tied):
    build("llama", tie_word_embeddings=tied).to(torch.bfloat16).save_pretrained("net")
    for dtype in (torch.float32, torch.bfloat16):
        assert load_weights(AutoModelForCausalLM, "net", dtype=dtype).dtype == dtype
    if tied:
        LlamaModel(build("llama", tie_word_embeddings=True).config).save_pretrained("base")
        load_weights(AutoModelForCausalLM, "base", dtype=torch.float32)  # its head is the embedding
    load_weights(AutoModel, "net", dtype=torch.float32, part=True)
    attach(terms={"a": NEXT_STATE}).to(torch.bfloat16).save_pretrained("heads")
    assert from_pretrained("heads").dtype == torch.float32
    assert from_pretrained("heads", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_that_nobody_reads_are_told():
    build("llama").save_pretrained("net")
    config = json.loads(Path("net/config.json").read_text())
    Path("net/config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.warns(UserWarning, match=r"net: 18 of its weights are not part of LlamaForCausalLM and not read"):
        load_weights(AutoModelForCausalLM, "net", dtype=torch.float32)


def test_saved_heads_that_start_again_are_told():
    attach(terms={"a": NEXT_STATE}).save_pretrained("net")
    model = AutoModelForCausalLM.from_pretrained("net")
    with pytest.warns(UserWarning, match="net: holds trained latent heads, and they start again"):
        get_latent_model(model, {"terms": {"a": NEXT_STATE}})
    from_pretrained("net")


def test_an_adapter_that_does_not_arrive_is_refused():
    build("llama").save_pretrained("base")
    lora(attach(terms={"a": NEXT_STATE})).save_pretrained("adapter")
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    Path("adapter/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./base"}))
    assert latentlm("export", "adapter", "plain").code == 0
    assert with_adapter(AutoModelForCausalLM.from_pretrained("base"), "plain") is not None
    file = "adapter/adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.9"): w for name, w in load_file(file).items()}, file)
    told = latentlm("export", "adapter", "merged", "--merge")
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "adapter: cannot be loaded (Found missing adapter keys" in told.err


def test_a_pooler_is_no_loss():
    vit().save_pretrained("net")
    edit(lambda weights: {name: w for name, w in weights.items() if "pooler" not in name})
    load_weights(AutoModel, "net", dtype=torch.float32)


@pytest.mark.parametrize("words", [["eval", "reversal", "./net", "suite=binding"], ["export", "./net", "out"]])
def test_code_beside_a_model_is_neither_run_nor_asked_about(words, monkeypatch):
    build("llama").save_pretrained("net")
    config = json.loads(Path("net/config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}, "model_type": "evil"}
    Path("net/config.json").write_text(json.dumps(config))
    Path("net/evil.py").write_text("open('ran', 'w')\n")

    def asked(*_):
        raise AssertionError("it asked")

    monkeypatch.setattr("builtins.input", asked)
    told = latentlm(*words)
    assert (told.code, told.err.count("\n")) == (2, 1)
    assert "comes with its own code, which was not run" in told.err
    assert not Path("ran").exists()
    shutil.rmtree("net")
