"""Mistakes with images are one line each, from an empty folder and before any weights; the rest is trained on."""

from pathlib import Path

import pytest
import transformers
from PIL import Image
from run_cli import latentlm
from test_bad_input_text import refused
from tiny_recipes import tiny

MAE = ["mae", *tiny("mae")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder, offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def no_weights(monkeypatch):
    def built(*args, **kwargs):
        raise AssertionError("a network was built before the mistake was found")

    for name in ("from_config", "from_pretrained"):
        monkeypatch.setattr(transformers.AutoModel, name, built)


def pictures() -> list[str]:
    """A folder of images of many sizes and modes; the override that trains on it."""
    kinds = [("RGB", (20, 20)), ("L", (16, 24)), ("RGBA", (40, 20)), ("P", (12, 12)), ("1", (9, 30)), ("CMYK", (8, 8))]
    kinds += [("LA", (20, 20)), ("I;16", (20, 20))]
    for number, (mode, size) in enumerate(kinds):
        path = Path("pictures", "cat" if number % 2 else "dog", f"{number}.{'jpg' if mode == 'CMYK' else 'png'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        (Image.new("I;16", size) if mode == "I;16" else Image.new("RGB", size, (200, 9, 90)).convert(mode)).save(path)
    return ["data.source=pictures"]


def test_mixed_sizes_and_modes_are_trained_on_and_damaged_files_are_counted_and_named(caplog):
    words = pictures()
    Path("pictures/cat/half.png").write_bytes(Path("pictures/cat/1.png").read_bytes()[:40])
    Path("pictures/dog/empty.jpg").write_bytes(b"")
    told = latentlm(
        "train",
        *MAE,
        "model=tiny_vit",
        *words,
        "training.per_device_train_batch_size=8",
        "training.max_steps=1",
        "training.output_dir=run",
    )
    assert told.code == 0, told.err
    assert caplog.text.count("2 of 10 images of pictures cannot be read, others stood in for them") == 1
    assert "half.png" in caplog.text
    assert "empty.jpg" in caplog.text
    assert Path("run/model/preprocessor_config.json").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [*MAE, "model.config.patch_size=5"],
            "model.config: patch_size 5 x 5 does not divide image_size 32 x 32",
        ),
        ([*MAE, "model.config.num_channels=2"], "model: num_channels 2; images have 1 or 3"),
        ([*MAE, "data.mask.ratio=0.999"], "data.mask.ratio: hides 64 to 64 of 64 patches; leave at least one to see"),
        ([*MAE, "data.mask.ratio=0.001"], "data.mask.ratio: hides 0 to 0 of 64 patches; leave at least one to see"),
        ([*MAE, "data.mask.ratio=1"], "data.mask: ratio: [1.0, 1.0]; give numbers above 0 and below 1"),
        ([*MAE, "model.config.image_size=4"], "data.mask.ratio: hides 1 to 1 of 1 patches"),
        ([*MAE, "data.mask=null"], "objective.terms.pixels: images data give no 'visible'"),
        (
            [*MAE, "objective.terms.pixels.source.depth=block 9"],
            "terms.pixels: depth block 9: the model has 6 blocks; use 0..6",
        ),
        ([*MAE, "objective.lm_weight=1"], "objective.lm_weight: a ViT has no next-token loss; set lm_weight: 0"),
        ([*MAE, "model.config.model_type=vti"], "no vision model 'vti'; did you mean 'vit'?"),
        (
            ["mae", "model.name=./nothing", "data.source={kind: scenes}"],
            "model.name: there is no folder ./nothing; check the path",
        ),
        (
            [*MAE, "data.source={kind: image_folder, path: ./none, size: 40}"],
            "data.source.size is now left out: files are cut as large as the model reads them",
        ),
        ([*MAE, "data.source=./none"], "data.source.path: there is no folder"),
        ([*MAE, "data.source=none"], "data.source: cannot read none"),
        ([*MAE, "data.source={kind: image_folder, path: none}"], "data.source.path: there is no folder"),
        (
            [*MAE, "data.source={kind: hf_dataset, path: none, streaming: true}", "training.max_steps=-1"],
            "data.source: cannot read split train of none",
        ),
        (
            [*MAE, "model=tiny_vit", "data.source={kind: fashion_mnist, path: .}"],
            "has no train-images-idx3-ubyte[.gz]; give a folder",
        ),
        (
            ["simclr", "training.per_device_train_batch_size=1"],
            "training.per_device_train_batch_size: one image has no batch statistics, which contrast needs",
        ),
        (
            ["lejepa", "training.per_device_train_batch_size=1"],
            "training.per_device_train_batch_size: one image has no batch statistics, which gaussian needs",
        ),
        (
            ["capi", "training.per_device_train_batch_size=1"],
            "training.per_device_train_batch_size: one image has no batch statistics, which hidden_patches needs",
        ),
        (
            ["byol", "training.per_device_train_batch_size=1"],
            "training.per_device_train_batch_size: one image has no batch statistics, which heads.projection needs",
        ),
        (
            ["simclr", "data.source={kind: scenes, num_train: 1}"],
            "training.per_device_train_batch_size: one image has no batch",
        ),
        (["dino", "data.views={num: 1}"], "objective.terms.crops: images data give no 'cls_1'; did you mean"),
        (
            ["constructive", "objective.terms.ladder.sources=[block 2, block 9]"],
            "terms.ladder: depth block 9: the model has 6",
        ),
        (["salt"], "target frozen: checkpoint: runs/mae/model: cannot be loaded"),
        (["ijepa", "data.mask.scale=[0.9, 0.9]"], "data.mask: blocks leave fewer than 4 of 64 patches to see"),
    ],
)
def test_a_recipe_is_refused_before_any_weights(no_weights, words, line):
    refused("train", *words, line=line)
