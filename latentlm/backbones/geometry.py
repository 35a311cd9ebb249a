"""What the config of a vision network says of images and patches, whatever names its family has for them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import ViTConfig

from latentlm.config.schema import ConfigError

IMAGE = ("image_size", "crop_size")
CHANNELS = ("num_channels", "in_chans")


@dataclass(frozen=True)
class Geometry:
    """What a network reads.

    Attributes:
        image: height and width of the images it was made for.
        patch: height and width of a patch.
        channels: of the pixels.
        num_layers: blocks.
        norm: mean and deviation of the channels, where the config itself tells (timm).
    """

    image: tuple[int, int]
    patch: tuple[int, int]
    channels: int
    num_layers: int
    norm: tuple[tuple[float, ...], tuple[float, ...]] | None = field(default=None, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


def vision_config(config: Any) -> Any:
    """The config of the network that reads the pixels: that of the vision tower, where there are two towers."""
    return getattr(config, "vision_config", None) or config


def encoder_config(config: Any) -> Any:
    """The config of the network that is read and trained: of the vision tower, and for a MAE that of a plain ViT.

    The encoder of a MAE is a ViT weight by weight, but hides patches of its own choice.
    """
    tower = vision_config(config)
    if tower.model_type != "vit_mae":
        return tower
    known = ViTConfig().to_dict()
    return ViTConfig(**{key: value for key, value in tower.to_dict().items() if key in known and key != "model_type"})


def image_key(config: Any) -> str | None:
    """The config's name for the side of an image."""
    return next((key for key in IMAGE if getattr(config, key, None) is not None), None)


def geometry(config: Any, where: str = "model.config") -> Geometry:
    """What the network of a config reads; a network without one grid of patches is refused in a line that says why.

    Args:
        config: of transformers.
        where: to name it by.
    """
    kind = config.model_type
    if kind == "timm_wrapper":
        return _of_timm(config)
    refuse_pyramid(config, where)
    patch, layers = getattr(config, "patch_size", None), getattr(config, "num_hidden_layers", None)
    if patch is None or layers is None:
        raise ConfigError(f"{where}: {kind} has no patches in a row of blocks; use a plain ViT such as vit or dinov2")
    patch = pair(patch, f"{where}.patch_size")
    if (key := image_key(config)) is not None:
        image = pair(getattr(config, key), f"{where}.{key}")
    elif (num := getattr(config, "num_patches", None)) is not None and round(num**0.5) ** 2 == num:
        image = (round(num**0.5) * patch[0], round(num**0.5) * patch[1])  # SigLIP 2 counts patches
    else:
        raise ConfigError(f"{where}: {kind} does not say the size of its images; use a plain ViT such as vit or dinov2")
    if image[0] % patch[0] or image[1] % patch[1]:
        raise ValueError(
            f"model.config: patch_size {patch[0]} x {patch[1]} does not divide image_size {image[0]} x {image[1]}; "
            "choose one that does"
        )
    return Geometry(image, patch, next(getattr(config, key) for key in CHANNELS if hasattr(config, key)), layers)


def refuse_pyramid(config: Any, where: str) -> None:
    """Swin, ConvNeXt, ResNet and the like: what stages and their widths show, and no name."""
    stages = [getattr(config, key, None) for key in ("depths", "hidden_sizes", "embed_dims", "num_stages")]
    if any(isinstance(each, list | tuple) and len(each) > 1 for each in stages[:3]) or isinstance(stages[3], int):
        raise ConfigError(
            f"{where}: {config.model_type} merges patches between its stages, so it has no one grid of patches that "
            "all depths share; use a plain ViT such as vit, deit or dinov2"
        )


def pair(value: Any, what: str) -> tuple[int, int]:
    """One or two numbers as height and width."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise ValueError(f"{what} is {value!r}; a ViT needs one or two numbers there")


def _of_timm(config: Any) -> Geometry:
    from latentlm.backbones.timm_vit import check_plain

    name = config.architecture
    try:
        import timm  # pyright: ignore[reportMissingImports] - optional

        with torch.device("meta"):  # no weights: only its sizes are read
            inner: Any = timm.create_model(name, pretrained=False, **(config.model_args or {}))
    except ImportError as error:
        raise ConfigError(f"model: {name} is timm's; pip install timm ({error})") from error
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"model: timm cannot make {name} ({' '.join(str(error).split())[:150]})") from error
    check_plain(inner)
    told = inner.pretrained_cfg or {}
    return Geometry(
        image=pair(inner.patch_embed.img_size, name),
        patch=pair(inner.patch_embed.patch_size, name),
        channels=inner.patch_embed.proj.in_channels,
        num_layers=len(inner.blocks),
        norm=(tuple(told["mean"]), tuple(told["std"])) if told.get("mean") else None,
    )
