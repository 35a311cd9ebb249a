"""A labelled folder of one's own: train, evaluate, report; traps of splits are refused or told."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.images import balanced, pictures
from latentlm_evals.vision import Options, evaluate, table
from PIL import Image
from run_cli import latentlm
from tiny_recipes import tiny
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from latentlm.data.images import HfDataset, ImageFolder

CLASSES = ("cat", "dog", "emu")
QUICK = Options(num_train=60, num_test=20, pixels=0, decoder=0, attentive=False, figures=False)


def write(folder: Path, classes=CLASSES, num=30, seed=0) -> Path:
    """A folder of noise in a colour of its class, every image of another shape."""
    draw = np.random.default_rng(seed)
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(num):
            array = draw.integers(0, 120, (20 + i, 40, 3), dtype=np.uint8)
            array[..., label % 3] += 100
            Image.fromarray(array).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    network = ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4))
    size = {"height": 16, "width": 16}
    return ImageEncoder("tiny", network, ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3))


@pytest.mark.slow
def test_three_commands_train_evaluate_and_report_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos")
    (tmp_path / "photos/cat/broken.png").write_bytes(b"no image")
    small = [*tiny("mae"), "training.use_cpu=true", "training.max_steps=2", "model.config.num_hidden_layers=2"]
    told = latentlm("train", "mae", *small, "data.source=photos", "training.output_dir=runs/mae")
    assert told.code == 0, told.err
    quick = ["num_train=60", "num_test=20", "pixels=20", "decoder=0", "attentive=false"]
    told = latentlm("eval", "vision", "runs/mae", *quick)
    assert told.code == 0, told.err
    for word in ("chance", "random 0", "raw pixels", "95 % intervals", "the network was trained on the test images"):
        assert word in " ".join(told.out.split()), word
    assert "probes, network" in told.err  # what is being done
    results = json.loads(Path("runs/mae/eval/vision.json").read_text())["results"]
    assert results["vision/raw pixels"]["linear,none"] > 0.9
    assert results["vision/chance"]["linear,none"] == pytest.approx(1 / 3, abs=0.05)
    assert results["vision/depth 2"]["linear_stderr,none"] > 0 or results["vision/depth 2"]["linear,none"] == 1
    told = latentlm("report", "runs/mae")
    assert told.code == 0, told.err
    page = Path("runs/mae/report.html").read_text()
    assert "chance" in page
    assert page.count("<img") >= 3  # curves over depth, reconstructions, neighbours


def test_a_fifth_of_each_class_is_set_aside(tmp_path, encoder):
    source = ImageFolder(str(write(tmp_path / "set")))
    train, test = (pictures(source, split, 1000, 0, encoder) for split in ("train", "test"))
    assert train.images.shape == (72, 3, 16, 16)
    assert np.bincount(test.labels["label"]).tolist() == [6, 6, 6]
    few = pictures(source, "train", 12, 0, encoder)
    assert np.bincount(few.labels["label"]).tolist() == [4, 4, 4]
    result = evaluate(encoder, source, QUICK)
    assert result.warnings == []
    assert "chance" in {task.alias for task in result.tasks.values()}


def test_the_same_images_on_both_sides_are_refused(tmp_path, encoder):
    write(tmp_path / "set" / "all")
    with pytest.raises(ValueError, match=r"^source: 20 of 20 test images are training images as well"):
        evaluate(encoder, ImageFolder(str(tmp_path / "set"), train="all", test="all"), QUICK)
    write(tmp_path / "other" / "train")
    write(tmp_path / "other" / "test", seed=1)
    for name in CLASSES[:1]:
        copied = (tmp_path / "other/train" / name / "0.png").read_bytes()
        (tmp_path / "other/test" / name / "0.png").write_bytes(copied)
    result = evaluate(
        encoder, ImageFolder(str(tmp_path / "other")), Options(**{**vars(QUICK), "num_train": 90, "num_test": 90})
    )
    assert result.warnings == ["same images: 1 of 90 test images are training images as well"]


def test_classes_on_one_side_alone_are_refused(tmp_path, encoder):
    rows = HfDataset(str(write(tmp_path / "set")), train="train[:66%]", test="train[66%:]")  # listed class by class
    with pytest.raises(
        ValueError, match=r"^source: test images are of 1 classes that no training image has \(such as 2\)"
    ):
        evaluate(encoder, rows, QUICK)


def test_images_without_classes_say_so(tmp_path, encoder):
    source = ImageFolder(str(write(tmp_path / "set", classes=(".",))))
    with pytest.raises(ValueError, match="these images have none, so there are no accuracies"):
        evaluate(encoder, source, QUICK)
    result = evaluate(encoder, source, Options(**{**vars(QUICK), "pixels": 20}))
    assert result.warnings[0].startswith("classes: ")
    assert "no accuracies" in str(table({"a": result})[-1].caption)
    one = ImageFolder(str(write(tmp_path / "one", classes=("cat",))))
    with pytest.raises(ValueError, match="no accuracies"):
        evaluate(encoder, one, QUICK)


def test_damaged_files_are_told_once(tmp_path, encoder, caplog):
    folder = write(tmp_path / "set")
    (folder / "cat" / "broken.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        evaluate(encoder, ImageFolder(str(folder)), Options(**{**vars(QUICK), "num_train": 90, "num_test": 90}))
    assert caplog.text.count("cannot be read, left out") == 1


def test_a_draw_takes_as_many_of_each_class_as_there_are():
    labels = np.repeat([0, 1, 2], [50, 5, 20])
    assert np.bincount(labels[balanced(labels, 75, 30, 0)]).tolist() == [13, 5, 12]
    assert sorted(balanced(labels, 75, 100, 0)) == list(range(75))
    assert len(set(balanced(None, 75, 30, 0))) == 30
