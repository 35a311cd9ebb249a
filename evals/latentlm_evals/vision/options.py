"""What `latentlm eval vision` can be told."""

from dataclasses import dataclass
from typing import Literal

from latentlm.data.images.dataset import Source
from latentlm.result import check_replaceable


@dataclass(frozen=True)
class Options:
    """What is evaluated on which images.

    Args:
        source: images to evaluate on: a folder with a folder for each class, a hub data set, or a part such as scenes
            or fashion_mnist; None: those of the run's recipe. Without test images, a fifth of each class is set aside.
        num_train, num_test: images to fit readouts on, and to score them on, of a folder as many of each class.
        at: mean reads the mean of the patches, cls the class token, both the two beside each other.
        floors: score fresh weights, raw pixels and 64 principal components beside the network.
        attentive: also fit an attentive probe on the top.
        pixels: images on which pixels are decoded; 0: none.
        decoder: steps for which the small decoder of pixels is trained; 0: only the linear map.
        finetune: passes over the images when all weights are trained; 0: not done.
        figures: draw the pictures beside the result.
        seed: of subsets, splits, fresh weights and probes.
        device: torch device; None: the GPU if there is one.
        out: result file; None: eval/vision.json in the run folder.
    """

    source: str | Source | None = None
    num_train: int = 4000
    num_test: int = 2000
    at: Literal["mean", "cls", "both"] = "mean"
    floors: bool = True
    attentive: bool = True
    pixels: int = 400
    decoder: int = 200
    finetune: int = 0
    figures: bool = True
    seed: int = 0
    device: str | None = None
    out: str | None = None

    def __post_init__(self) -> None:
        check_replaceable("out", self.out)
        for key, least in (
            ("num_train", 50),
            ("num_test", 20),
            ("pixels", 0),
            ("decoder", 0),
            ("finetune", 0),
            ("seed", 0),
        ):
            if getattr(self, key) < least:
                raise ValueError(f"{key}: {getattr(self, key)}; set it to {least} or more")
