"""States that evaluations read are the network's own, whatever the batch, and kept on disk only while they are true."""

import pytest
import torch
from latentlm_evals.models.load import load, load_tokenizer
from latentlm_evals.models.text_encoder import TextEncoder, load_encoder
from peft import LoraConfig, get_peft_model
from tiny_models import build as tiny
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from latentlm.data import word_tokenizer

TEXTS = ["the red fox sees the old dog", "a fox", "the dog barks", "the old red dog sees a fox"]


@pytest.fixture
def tokenizer():
    return word_tokenizer(TEXTS)


@pytest.fixture
def encoder(tokenizer):
    return TextEncoder("tiny", tiny("llama").float(), tokenizer)


def test_states_are_those_of_the_network_read_alone(encoder, tokenizer):
    states = encoder.states(TEXTS, batch_size=3)
    assert states.shape == (len(TEXTS), encoder.num_layers + 1, encoder.dim)
    for text, mine in zip(TEXTS, states, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = encoder.model(input_ids=ids, output_hidden_states=True).hidden_states
        for depth in range(encoder.num_layers):  # the last entry of hidden_states is behind the final norm
            torch.testing.assert_close(mine[depth], hidden[depth][0, -1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(states, encoder.states(TEXTS, batch_size=1), atol=1e-5, rtol=1e-4)


def test_spans_and_means(encoder):
    whole = encoder.states(["the red fox sees the old dog"] * 2, spans=[(4, 11), (0, 28)])
    prefix = encoder.states(["the red fox"])
    torch.testing.assert_close(whole[0], prefix[0], atol=1e-5, rtol=1e-4)
    parts = [encoder.states(TEXTS[:1], spans=[span])[0] for span in ((4, 7), (8, 11))]
    mean = encoder.states(TEXTS[:1], "mean", spans=[(4, 11)])[0]
    torch.testing.assert_close(mean, torch.stack(parts).mean(0), atol=1e-5, rtol=1e-4)


def test_only_what_is_asked_for(encoder):
    torch.testing.assert_close(encoder.states(TEXTS, depths=[1]), encoder.states(TEXTS)[:, 1:2])
    with pytest.raises(ValueError, match="not 99"):
        encoder.states(TEXTS, depths=[99])
    with pytest.raises(ValueError, match="holds no token"):
        encoder.states(["a fox"], spans=[(1, 2)])


def test_the_cache_is_read_only_for_equal_weights_and_texts(encoder, tmp_path):
    kept = encoder.cached(tmp_path)
    first = kept.states(TEXTS)
    kept._read = None  # the second time nothing runs
    assert torch.equal(kept.states(TEXTS), first)
    with torch.no_grad():
        next(encoder.model.parameters()).mul_(1.5)
    other = encoder.cached(tmp_path).states(TEXTS)
    assert not torch.equal(other, first)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_random_twin_is_another_network_of_the_same_shape(encoder):
    twin = encoder.random_init(1)
    assert torch.equal(twin.states(TEXTS), encoder.random_init(1).states(TEXTS))
    assert twin.states(TEXTS).shape == encoder.states(TEXTS).shape
    assert not torch.allclose(twin.states(TEXTS), encoder.states(TEXTS))


def test_diverged_weights_are_told(encoder):
    with torch.no_grad():
        encoder.backbone.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="are not finite: the weights"):
        encoder.states(TEXTS)


def test_folders_of_every_kind(encoder, tokenizer, tmp_path):
    encoder.model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    torch.testing.assert_close(load_encoder(str(tmp_path / "lm"), "cpu").states(TEXTS), encoder.states(TEXTS))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    assert load_encoder(str(tmp_path / "bert"), "cpu").states(TEXTS).shape == (4, 3, 16)


def test_adapters_and_what_lies_above_the_deepest_depth(encoder, tokenizer, tmp_path):
    base = tmp_path / "base"
    encoder.model.save_pretrained(base)
    wrapped = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    adapted = load_encoder(str(tmp_path / "adapter"), "cpu").states(TEXTS)
    torch.testing.assert_close(adapted, TextEncoder("merged", wrapped.merge_and_unload(), tokenizer).states(TEXTS))
    assert not torch.allclose(adapted, encoder.states(TEXTS))
    (tmp_path / "adapter" / "tokenizer_config.json").unlink()  # PEFT itself saves none: that of the base will do
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="adapter: its tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path / "adapter"))
    tokenizer.save_pretrained(base)
    assert load_tokenizer(str(tmp_path / "adapter")).get_vocab() == tokenizer.get_vocab()
    encoder.backbone.layers[1].forward = None
    assert encoder.states(TEXTS, depths=[1, 0]).isfinite().all()


@pytest.mark.parametrize(
    ("more", "says"),
    [({"at": "patches"}, "for images"), ({"at": "cls"}, "no class token"), ({"spans": [(0, 1)]}, "spans: 1 for 4")],
)
def test_mistakes_are_named(encoder, more, says, tmp_path, unchecked_types):
    with pytest.raises(ValueError, match=says):
        encoder.states(TEXTS, **more)
    with pytest.raises(ValueError, match="no checkpoint in this folder"):
        load_encoder(str(tmp_path))
    with pytest.raises(ValueError, match="tokens in 'fox fox"):
        encoder.states(["fox " * 9999])


def test_weights_and_devices_that_cannot_be_used_are_one_line(encoder, tokenizer, tmp_path):
    encoder.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    for read in (load, load_encoder):
        with pytest.raises(ValueError, match="weights cannot be read"):
            read(str(tmp_path), "cpu")
        with pytest.raises(ValueError, match=r"^device: foo cannot be used here \(.*\); use cpu"):
            read(str(tmp_path), "foo")
        with pytest.raises(ValueError, match=r"nobody/nothing"):
            read("nobody/nothing", "cpu")


def test_an_adapter_of_a_half_precision_base_is_merged_in_float32_on_a_cpu(encoder, tokenizer, tmp_path):
    base = encoder.model.bfloat16()
    base.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    wrapped = get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    model, _ = load(str(tmp_path / "adapter"), "cpu")
    assert model.dtype == torch.float32
    for name, weight in wrapped.merge_and_unload().state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight)
