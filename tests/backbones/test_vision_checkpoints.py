"""Going on from vision checkpoints: their size, their processor, their towers, adapters; and what is refused."""

import json

import pytest
import torch
import transformers as tf

from latentlm.attach.state import latent_state
from latentlm.backbones.preprocessing import read_preprocessing
from latentlm.backbones.resample import resampled
from latentlm.config.schema import ConfigError
from latentlm.experiment.build_model import build_model, read_config
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
PLAIN = SIZES | {"intermediate_size": 64}
RUN = ["data.source={kind: scenes, num_train: 16}", "training.use_cpu=true", "training.max_steps=2",
       "training.warmup_steps=0", "training.per_device_train_batch_size=8", "training.save_strategy=no"]  # fmt: skip


def saved(folder, model, **processor):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.05 * torch.randn_like(weight)
    model.eval().save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def vit(folder, **processor):
    return saved(folder, tf.ViTModel(tf.ViTConfig(**PLAIN), add_pooling_layer=False), **processor)


def recipe(name, *more, method="mae"):
    return load_recipe(method, [f"model.name={name}", *RUN, *more])


def built(of):
    return build_model(of, read_config(of), None)


def test_the_checkpoints_mean_and_deviation_are_used_and_kept_beside_the_weights(tmp_path, capsys):
    told = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    folder = vit(tmp_path / "ckpt", **told)
    run = train(recipe(folder, f"training.output_dir={tmp_path / 'a'}"))
    assert told.items() <= json.loads((run / "model/preprocessor_config.json").read_text()).items()
    assert "but" not in capsys.readouterr().err
    run = train(recipe(folder, f"training.output_dir={tmp_path / 'b'}", "data.mean=[0.5]", "data.std=[0.5]"))
    out = " ".join(capsys.readouterr().err.split())
    assert f"data.std: [0.5], but {folder} was trained with [0.229, 0.224, 0.225]; leave it out to use that" in out
    assert json.loads((run / "model/preprocessor_config.json").read_text())["image_std"] == [0.5] * 3


def test_at_another_size_positions_are_resampled_once(tmp_path, capsys):
    folder = vit(tmp_path / "ckpt")
    run = train(recipe(folder, f"training.output_dir={tmp_path / 'run'}", "model.config.image_size=32"))
    assert "made for images of 16 x 16, trained at 32 x 32; learned positions" in " ".join(
        capsys.readouterr().err.split()
    )
    config = tf.AutoConfig.from_pretrained(run / "model")
    assert config.image_size == 32
    plain = tf.AutoModel.from_pretrained(run / "model")
    assert plain(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape == (1, 65, 32)
    fresh = built(recipe(folder, "model.config.image_size=32")).embeddings.position_embeddings
    old = tf.ViTModel.from_pretrained(folder).embeddings.position_embeddings
    torch.testing.assert_close(fresh[:, 0], old[:, 0])
    torch.testing.assert_close(fresh, resampled(old, (4, 4), (8, 8)))
    small = saved(tmp_path / "beit", tf.BeitModel(tf.BeitConfig(**PLAIN, use_relative_position_bias=True)))
    other = built(recipe(small, "model.config.image_size=32"))
    assert other.layers[0].relative_position_bias.relative_position_bias_table.shape == (15 * 15 + 3, 2)


def test_resampling_a_smooth_table_keeps_it():
    line = (torch.arange(8) + 0.5) / 8
    table = torch.stack([*torch.meshgrid(line, line, indexing="ij"), torch.ones(8, 8)], -1).flatten(0, 1)[None]
    wide = resampled(table, (8, 8), (16, 16)).unflatten(1, (16, 16))[0]
    want = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(wide[4:12, 5, 0], want[4:12])
    torch.testing.assert_close(wide[5, 4:12, 1], want[4:12])
    torch.testing.assert_close(wide[..., 2], torch.ones(16, 16))


def test_the_processors_size_is_taken_where_it_is_another(tmp_path, capsys):
    told = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True, "size": {"shortest_edge": 12}}
    folder = vit(tmp_path / "ckpt", **told, crop_size={"height": 8, "width": 8})
    assert read_preprocessing(folder).size == 8
    assert read_config(recipe(folder)).image_size == 8
    assert read_config(recipe(folder, "model.config.image_size=16")).image_size == 16


def test_keys_of_the_config_are_overridden_or_refused(tmp_path):
    folder = saved(tmp_path / "dino", tf.Dinov2Model(tf.Dinov2Config(**SIZES)))
    model = built(recipe(folder, "model.config.drop_path_rate=0.25"))
    assert model.config.drop_path_rate == 0.25
    assert {type(block.drop_path).__name__ for block in latent_state(model).backbone.layers} == {"Dinov2DropPath"}
    for key, told in [
        ("drop_path_rat=0.1", "unknown key 'drop_path_rat' for dinov2; did you mean 'drop_path_rate'"),
        ("model_type=vit", "the checkpoint of model.name is a dinov2"),
        ("hidden_size=64", "of its weights have another shape"),
    ]:
        with pytest.raises(ConfigError, match=told):
            built(recipe(folder, f"model.config.{key}"))


def test_the_encoder_of_a_mae_is_loaded_as_a_vit_and_towers_without_their_texts(tmp_path, capsys):
    config = tf.ViTMAEConfig(**PLAIN, decoder_hidden_size=16, decoder_num_hidden_layers=1,
                             decoder_num_attention_heads=2, decoder_intermediate_size=32)  # fmt: skip
    mae = tf.ViTMAEForPreTraining(config)
    folder = saved(tmp_path / "mae", mae)
    model, pixels = built(recipe(folder)).eval(), torch.randn(2, 3, 16, 16)
    config.mask_ratio = 0.0
    noise = torch.arange(16.0).expand(2, -1)
    want = mae.vit(pixels, noise=noise).last_hidden_state
    torch.testing.assert_close(model(pixels).last_hidden_state, want)
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for kind in ("CLIP", "Siglip"):
        parts = getattr(tf, f"{kind}Config")(text_config=text, vision_config=PLAIN)
        both = getattr(tf, f"{kind}Model")(parts)
        model = built(recipe(saved(tmp_path / kind, both))).eval()
        want = both.vision_model(pixels).last_hidden_state
        torch.testing.assert_close(model(pixels).last_hidden_state, want)


def test_adapters_and_half_precision(tmp_path):
    folder = vit(tmp_path / "ckpt")
    run = train(recipe(folder, f"training.output_dir={tmp_path / 'lora'}", "model.lora.r=2", method="ijepa"))
    assert (run / "adapter/adapter_model.safetensors").is_file()
    old, new = tf.ViTModel.from_pretrained(folder), tf.ViTModel.from_pretrained(run / "model")
    assert not torch.equal(old.layers[0].mlp.fc1.weight, new.layers[0].mlp.fc1.weight)
    assert torch.equal(old.embeddings.position_embeddings, new.embeddings.position_embeddings)
    train(recipe(folder, f"training.output_dir={tmp_path / 'half'}", "training.bf16=true", method="dino"))
    assert built(recipe(folder, "model.dtype=bfloat16")).layers[0].mlp.fc1.weight.dtype == torch.bfloat16


def test_pyramids_are_refused_before_any_weight_is_made():
    for kind in ("swin", "convnext", "resnet"):
        of = load_recipe("mae", [f"model={{config: {{model_type: {kind}}}}}", *RUN])
        with pytest.raises(
            ConfigError, match=f"model: {kind} merges patches between its stages, so it has no one grid"
        ):
            read_config(of)


@pytest.mark.filterwarnings("ignore:latent.masked")  # such a batch is told as well
def test_batches_in_which_nothing_may_be_hidden_are_told(tmp_path, capsys):
    vit_run = ["data.mask={kind: random, ratio: 0.5, probability: 0.1}", f"training.output_dir={tmp_path / 'run'}"]
    train(recipe(vit(tmp_path / "ckpt"), *vit_run, "training.per_device_train_batch_size=2"))
    assert "data.mask.probability: 0.1, so 81% of the batches hide nothing" in " ".join(capsys.readouterr().err.split())
