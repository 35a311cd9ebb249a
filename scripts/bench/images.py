"""Images of a folder: time to the first step, peak memory and images a second, and the loader against torchvision's v2.

    python scripts/bench/images.py [--images 20000 --size 224 --batch 32 --batches 8 --rounds 4 --workers 2] [FOLDER]

Makes FOLDER (by default a temporary one) with so many JPEG files of 500 x 375, unless it is there already. First
`latentlm train`'s own loop on it, each recipe in a process of its own. Then loaders alone, in one process, taking
turns: ours, and torchvision's transforms written plainly, on the same files with as many workers; that arm is left out
where torchvision is not installed.
"""

import argparse
import importlib.util
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from interleaved import machine
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from transformers import PrinterCallback, TrainerCallback

from latentlm.data.images import ImageFolder, Images, Random, Views
from latentlm.experiment.build_model import build_model, read_config
from latentlm.experiment.build_trainer import build_trainer
from latentlm.experiment.datasets import prepare
from latentlm.experiment.recipe import load_recipe

MASKED = Views(1, (0.2, 1.0), flip=0.5)
CROPS = Views(2, (0.4, 1.0), local=6, local_scale=(0.05, 0.4), flip=0.5, jitter=0.5, grayscale=0.2, blur=0.5)
KINDS = {"masked": (MASKED, Random(0.75), ("visible", "masked")), "multi-crop": (CROPS, None, ("cls_1", "cls_2"))}
RECIPES = {
    "mae": ["data.views.scale=[0.2, 1.0]", "data.views.flip=0.5"],
    "dino": ["data.views.local=6", "data.views.flip=0.5"],
}
DIFFERENT = 64  # files; the others are copies, which take as long to read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--size", type=int, default=224, help="side of the views that the loaders make")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=8, help="timed ones in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="of the training loop")
    args = parser.parse_args()
    if min(args.images, args.batch, args.batches, args.rounds, args.workers) < 1 or args.batch < 2 or args.steps < 3:
        parser.error("--batch: at least 2; --steps: at least 3; the others: at least 1")
    print(machine(1))
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary) / "images"
        if not folder.is_dir():
            make(folder, args.images)
        for name in RECIPES:
            print(alone(train, name, folder, args))
        for kind in KINDS:
            print(compare(kind, folder, args))


def make(folder: Path, num: int) -> None:
    """So many JPEG files of 500 x 375 in ten classes, smooth noise with some detail: some 40 kB each."""
    draw, files = np.random.default_rng(0), []
    for _ in range(min(DIFFERENT, num)):
        rough = draw.integers(0, 255, (50, 40, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(rough).resize((500, 375), Image.Resampling.BICUBIC)).astype(int)
        noisy = (picture + draw.integers(-8, 8, picture.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(file := folder.parent / f"{len(files)}.jpg", quality=85)
        files.append(file.read_bytes())
        file.unlink()
    for label in range(10):
        (folder / f"class{label}").mkdir(parents=True)
    for i in range(num):
        (folder / f"class{i % 10}" / f"{i:07}.jpg").write_bytes(files[i % len(files)])


def alone(work: Any, *given: Any) -> str:
    """What `work` says in a process of its own."""
    # an executor's process may have workers of its own, a pool's may not
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *given).result()


def train(name: str, folder: Path, args: argparse.Namespace) -> str:
    """The loop of `latentlm train`, from the recipe to the last step."""
    torch.set_num_threads(1)
    before, started, worked = _peak(resource.RUSAGE_SELF), time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as run:
        training = {"max_steps": args.steps, "per_device_train_batch_size": args.batch, "use_cpu": True}
        training |= {
            "output_dir": run,
            "dataloader_num_workers": args.workers,
            "save_strategy": "no",
            "warmup_steps": 0,
        }
        words = [f"training.{key}={value}" for key, value in training.items()]
        words += [f"data.source={folder}", "model.config.image_size=64", "model.config.patch_size=8", *RECIPES[name]]
        recipe = load_recipe(name, words)
        config = read_config(recipe)
        prepared = prepare(recipe, config)
        listed = time.monotonic() - started
        trainer = build_trainer(recipe, Path(run), prepared, build_model(recipe, config, None))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock := Clock())
        trainer.train()
    seconds = [each - started for each in clock.times]
    rate = args.batch * (len(seconds) - 1) / (seconds[-1] - seconds[0])
    peak, of_worker = _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)
    return (
        f"{name}, 64 x 64, {len(prepared.dataset)} files: ready after {listed:.1f} s, first step after "
        f"{seconds[0]:.1f} s ({clock.work[0] - worked:.1f} s of CPU in its process), {rate:.0f} images/s; "
        f"peak memory {peak} MB ({before} MB before), of a worker {of_worker} MB"
    )


class Clock(TrainerCallback):
    """When each step ended, and the CPU time of this process by then."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.work: list[float] = []

    def on_step_end(self, *given: Any, **more: Any) -> None:
        """Note it."""
        self.times.append(time.monotonic())
        self.work.append(time.process_time())


def _peak(who: int) -> int:
    return resource.getrusage(who).ru_maxrss // 1024


def compare(kind: str, folder: Path, args: argparse.Namespace) -> str:
    """Images a second of every arm, and the ratio to torchvision's in the same round."""
    arms = {"latentlm": ours(kind, folder, args)}
    if importlib.util.find_spec("torchvision"):
        arms["torchvision v2"] = plain(kind, folder, args)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(args.rounds):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            batches = batches_of(arms[name])
            for _ in range(2 * args.workers):  # what was made while the workers started
                next(batches)
            started = time.monotonic()
            for _ in range(args.batches):
                next(batches)
            rates[name].append(args.batch * args.batches / (time.monotonic() - started))
            batches.close()
    told = ", ".join(f"{name} {median(values):.0f} images/s" for name, values in rates.items())
    if len(arms) > 1:
        ratios = [a / b for a, b in zip(*rates.values(), strict=True)]
        told += f", ratio {median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
    return f"loader, {kind}, {args.size} x {args.size}, {args.workers} workers: {told}"


def batches_of(loader: DataLoader) -> Iterator[Any]:
    yield from loader


def ours(kind: str, folder: Path, args: argparse.Namespace) -> DataLoader:
    views, mask, sets = KINDS[kind]
    part = Images(ImageFolder(str(folder)), views, mask)
    return loader(part.dataset(), part.collator(args.size, 16, 3, sets), args)


def loader(data: Any, collate: Any, args: argparse.Namespace) -> DataLoader:
    sampler = RandomSampler(data, num_samples=args.batch * (args.batches + 4 * args.workers + 2), replacement=True)
    return DataLoader(data, args.batch, sampler=sampler, collate_fn=collate, num_workers=args.workers)


def plain(kind: str, folder: Path, args: argparse.Namespace) -> DataLoader:
    """Torchvision's `ImageFolder` and transforms v2, as its documentation and DINO's code write them."""
    from torchvision.datasets import ImageFolder as Files
    from torchvision.transforms import v2

    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]

    def crop(scale: tuple[float, float]) -> list[Any]:
        resized = v2.RandomResizedCrop(args.size, scale, interpolation=v2.InterpolationMode.BICUBIC)
        return [resized, v2.RandomHorizontalFlip()]

    if kind == "masked":
        return loader(Files(str(folder), v2.Compose([*crop((0.2, 1.0)), *end])), masked, args)
    colours = [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), v2.RandomGrayscale(0.2)]
    colours.append(v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], 0.5))
    views = [v2.Compose([*crop((0.4, 1.0)), *colours, *end])] * 2 + [
        v2.Compose([*crop((0.05, 0.4)), *colours, *end])
    ] * 6
    return loader(Files(str(folder), Several(views)), stacked, args)


class Several:
    """All views of an image."""

    def __init__(self, transforms: list[Any]):
        self.transforms = transforms

    def __call__(self, image: Any) -> torch.Tensor:
        """``[v c s s]``."""
        return torch.stack([transform(image) for transform in self.transforms])


def masked(examples: list[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels, and the quarter of the patches that is seen."""
    pixels = torch.stack([image for image, _ in examples])
    patches = (pixels.shape[-1] // 16) ** 2
    return pixels, torch.rand(len(pixels), patches).argsort(1)[:, : patches // 4]


def stacked(examples: list[Any]) -> torch.Tensor:
    return torch.stack([views for views, _ in examples]).flatten(0, 1)


if __name__ == "__main__":
    main()
