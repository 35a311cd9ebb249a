"""Images that `datasets` reads: parquet and webdataset, streamed or not, splits, columns, every error line."""

import io
import itertools
import logging
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from latentlm.data.images import HfDataset, Images, Views
from latentlm.data.images.sources import held


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (value, value, value)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of three classes as parquet files and as shards of webdataset, of which number 3 is damaged."""
    root = tmp_path_factory.mktemp("tables")
    rows = {
        "image": [{"bytes": png(20 * i), "path": f"{i}.png"} for i in range(12)],
        "label": [i % 3 for i in range(12)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    whole = datasets.Dataset.from_dict(rows, features=features)
    (root / "splits" / "data").mkdir(parents=True)
    whole.select(range(9)).to_parquet(root / "splits" / "data" / "train-0.parquet")
    whole.select(range(9, 12)).to_parquet(root / "splits" / "data" / "test-0.parquet")
    whole.to_parquet(root / "all.parquet")
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard}.tar", "w") as tar:
            for i in range(6 * shard, 6 * shard + 6):
                for suffix, data in (("png", b"no image" if i == 3 else png(20 * i)), ("cls", str(i % 3).encode())):
                    info = tarfile.TarInfo(f"{i:03}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return root


def grey(batch) -> list[int]:
    return [round((each.mean().item() + 1) * 127.5 / 20) for each in batch["pixel_values"]]


def test_parquet_files_and_their_splits(folder):
    source = HfDataset(str(folder / "splits"))
    train, test = source.stored("train"), source.stored("test", 0.5)
    assert (len(train), len(test)) == (9, 3)  # a split that is there is taken, whatever share could be
    assert test.classes == ("a", "b", "c")
    assert held(test, 4, "L").images.mean((1, 2, 3)).tolist() == [180, 200, 220]
    assert held(test, 4, "L").labels["label"].tolist() == [0, 1, 2]
    part = Images(str(folder / "splits"))
    dataset = part.dataset()
    assert grey(part.collator(8, 2, 3, ())(dataset.__getitems__(range(9)))) == list(range(9))


def test_a_share_is_set_aside_where_there_is_no_split(folder):
    source = HfDataset(str(folder / "all.parquet"))
    train, test = source.stored("train", 0.25), source.stored("test", 0.25)
    assert np.bincount(train.labels).tolist() == [3, 3, 3]
    assert np.bincount(test.labels).tolist() == [1, 1, 1]
    assert sorted([*train.index, *test.index]) == list(range(12))
    assert len(source.stored("train")) == 12
    with pytest.raises(ValueError, match=r"^source.test: .* has no test split"):
        source.stored("test")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_shuffled_read_whole_and_its_damaged_images_are_told(folder, caplog, workers):
    part = Images(HfDataset(str(folder / "shard-*.tar"), streaming=True), Views())
    dataset = part.dataset(seed=1)
    assert dataset.num_shards == 2
    collate = part.collator(8, 2, 3, ())
    passes = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        loader = DataLoader(dataset, 3, collate_fn=collate, num_workers=workers)
        found = [each for batch in loader for each in grey(batch)]
        assert len(found) == 12
        assert len(set(found) | {3}) == 12  # another one stands in for the damaged one
        passes.append(found)
    assert passes[0] != passes[1]
    with caplog.at_level(logging.WARNING):
        dataset.tell_unreadable()
    assert caplog.text.count("images of") == 1
    assert "003.png" in caplog.text
    keys = [example["key"] for example in itertools.islice(dataset, 12)]
    assert len(set(keys)) == 12


def test_webdataset_is_read_whole_as_well(folder):
    stored = HfDataset(str(folder / "shard-*.tar")).stored("train")
    assert len(stored) == 12
    assert stored.labels.tolist() == [i % 3 for i in range(12)]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"path": "./none"}, r"^source.path: there is no file or folder"),
        ({"image": "picture"}, r"^source.image: .* has the columns \['image', 'label'\]"),
        ({"label": "class"}, r"^source.label: .* has the columns"),
        ({"train": "nothing"}, r"^source: cannot read split nothing of"),
        ({"path": "no/such"}, r"^source: cannot read no/such"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(folder, more, line):
    with pytest.raises(ValueError, match=line):
        HfDataset(**({"path": str(folder / "all.parquet")} | more)).stored("train")


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="no share of a stream"):
        HfDataset("x", streaming=True, test=0.2)
    with pytest.raises(ValueError, match=r"^max_images"):
        Images(HfDataset("x", streaming=True), max_images=3).dataset()
