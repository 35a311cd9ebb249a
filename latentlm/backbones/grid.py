"""From pixels to positions: which patches a ViT sees, and its states laid out by image and view.

Beyond the legend: ``r`` rows of the network (``b * v``), ``s`` those of one run, ``v`` views, ``p`` patches, ``k``
patches kept; ``all_t`` and ``seen_t`` count the tokens in front of the patches (class and registers) as well.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask

from latentlm.backbones.image_inputs import ImageInputs, plain_inputs
from latentlm.types import ForwardView

NO_MASK = ("position_mask", "")  # blocks that cannot be told where to look
NO_SETS = ("views", "keep", "mask", "causal", "taught", "local_pixels")


@dataclass
class Grid:
    """The way of a ViT from pixels to its first block.

    Attributes:
        config: of the network.
        projection: module from pixels to one vector for each patch.
        embeddings: module from pixels to what the first block reads.
        patch: height and width of a patch.
        channels: of the pixels.
        rotary: module from pixels to the cosines and sines of patch positions, where the network turns its queries.
        relative: modules from a window to a bias for each pair of positions (BEiT).
        mask_token: dotted name of the encoder's own mask token; None where it has none.
        attention: the argument of a block that says where it may look; ``attn_mask`` takes plain truth values,
            ``position_mask`` the numbers of the patches (V-JEPA 2), ``relative_position_bias`` is added (data2vec).
            Empty where a block takes none of them (DINOv2 before transformers 5.18): it always looks everywhere.
        inputs: from pixels to the arguments of the network's forward.
    """

    config: Any
    projection: nn.Module
    embeddings: nn.Module
    patch: tuple[int, int]
    channels: int
    rotary: nn.Module | None = None
    relative: list[nn.Module] = field(default_factory=list)
    mask_token: str | None = None
    attention: str = "attention_mask"
    inputs: ImageInputs = plain_inputs

    @property
    def data_dim(self) -> int:
        """Pixel values in a patch."""
        return self.channels * self.patch[0] * self.patch[1]

    def shape(self, pixels: Float[Tensor, "r c h w"]) -> tuple[int, int]:
        """Rows and columns of patches."""
        high, wide = pixels.shape[-2:]
        if high % self.patch[0] or wide % self.patch[1]:
            raise ValueError(f"pixel_values: {high} x {wide} is not divided by patches of {self.patch}; crop or resize")
        return high // self.patch[0], wide // self.patch[1]

    def masked(
        self, projected: Float[Tensor, "r ..."], mask: Bool[Tensor, "r p"], token: Float[Tensor, "... d"]
    ) -> Float[Tensor, "r ..."]:
        """Projected patches with the mask token where `mask` is true; positions are added to them afterwards."""
        token = token.flatten().to(projected.dtype)
        if projected.dim() == 3:
            return torch.where(mask[..., None], token, projected)
        return torch.where(mask.unflatten(1, projected.shape[2:])[:, None], token[:, None, None], projected)

    def kept(
        self, embedded: Float[Tensor, "r all_t d"], keep: Int[Tensor, "r k"], pixels: Float[Tensor, "r c h w"]
    ) -> tuple[Float[Tensor, "r seen_t d"], Any]:
        """What the first block reads of the kept patches, and what the blocks need to be told of it.

        That is the attention mask where a row has fewer than others, or the numbers of the patches.
        """
        rows, columns = self.shape(pixels)
        front = embedded.shape[1] - rows * columns
        places = keep.clamp(min=0)[..., None].expand(-1, -1, embedded.shape[-1])
        state = torch.cat([embedded[:, :front], embedded[:, front:].gather(1, places)], 1)
        is_whole = bool((keep >= 0).all())
        if not is_whole and self.attention in NO_MASK:
            raise ValueError(
                "data.mask: some images keep fewer patches than others, and this network has no attention mask to "
                "tell it; use a mask of one size (kind: random, ratio: 0.75)"
            )
        if self.attention == "position_mask":
            return state, keep
        if is_whole:
            return state, None
        there = torch.cat([keep.new_ones(len(keep), front, dtype=torch.bool), keep >= 0], 1)
        if self.attention == "attn_mask":
            return state, there[:, None, None]
        if self.relative:  # is added to a bias
            return state, torch.where(there, 0.0, torch.finfo(state.dtype).min).to(state)[:, None, None]
        return state, create_bidirectional_mask(self.config, state, there)

    def causal(self, embedded: Float[Tensor, "r t d"]) -> Tensor:
        """An attention mask under which each position sees itself and those before it."""
        if self.attention in NO_MASK:
            raise ValueError(
                "data.mask: causal needs attention masks, and this network has none; use a ViT, or DINOv2 as of "
                "transformers 5.18"
            )
        num = embedded.shape[1]
        seen = torch.ones(num, num, dtype=torch.bool, device=embedded.device).tril()
        if self.attention != "attn_mask":
            seen = torch.where(seen, 0.0, torch.finfo(embedded.dtype).min).to(embedded)
        return seen.expand(len(embedded), 1, -1, -1)

    def biased(
        self, bias: Float[Tensor, "1 e all_t all_t"], keep: Int[Tensor, "r k"], p: int
    ) -> Float[Tensor, "r ..."]:
        """The bias among class token, registers and the kept patches, row by row."""
        front = bias.shape[-1] - p
        places = torch.arange(front, device=keep.device).expand(len(keep), -1)
        places = torch.cat([places, keep.clamp(min=0) + front], 1)  # r all_k
        return bias[0][:, places[:, :, None], places[:, None, :]].transpose(0, 1)

    def turned(self, angles: Float[Tensor, "p e"], keep: Int[Tensor, "r k"]) -> Float[Tensor, "r 1 k e"]:
        """Cosines or sines of the kept patches, row by row."""
        return angles[keep.clamp(min=0)][:, None]

    def taught(self, pixels: Float[Tensor, "r c h w"], latent: dict[str, Tensor]) -> Float[Tensor, "s c h w"]:
        """The pixels of the views that teachers run on."""
        if "taught" not in latent:
            return pixels
        return pixels.unflatten(0, (-1, len(latent["views"])))[:, latent["taught"]].flatten(0, 1)

    def view(
        self,
        states: dict[int, Float[Tensor, "s seen_t d"]],
        norm: Any,
        pixels: Float[Tensor, "r c h w"],
        latent: dict[str, Tensor],
        full: bool,
        local: dict[int, Float[Tensor, "l local_t d"]],
    ) -> ForwardView:
        """A view of one run: rows are images, segments their views.

        A view is its class token (the mean of its patches where the network has none) followed by its p patches in
        raster order. Registers are left out. A patch that was dropped has zeros and segment -1; `full` runs, those of
        teachers, drop none, but may have skipped whole views (`taught`): these are NaN, since nothing may read them.
        Views of another size (``latent.local_pixels``) come last, with as many positions as they have patches; `local`
        are their states, and to teachers they are NaN.
        """
        whole = self._view(states, norm, pixels, latent, full)
        if (small := latent.get("local_pixels")) is None:
            return whole
        rest = self._view(local, norm, small, {"views": range(len(small) // len(whole.segments))}, full=False)
        blank = partial(torch.full, fill_value=torch.nan, dtype=pixels.dtype, device=pixels.device)
        tail = {
            depth: blank((*rest.segments.shape, state.shape[-1])) if full else rest.states[depth]
            for depth, state in whole.states.items()
        }
        views = len(latent["views"])
        assert whole.places is not None
        assert rest.places is not None
        return ForwardView(
            states={depth: torch.cat([state, tail[depth].to(state)], 1) for depth, state in whole.states.items()},
            segments=torch.cat([whole.segments, rest.segments + views], 1),
            sets=whole.sets,
            norm=norm,
            tapped={**whole.tapped},
            places=torch.cat([whole.places, rest.places]),
            pixels=lambda: torch.cat([whole.pixels(), rest.pixels()], 1),  # type: ignore[misc]
        )

    def _view(
        self,
        states: dict[int, Float[Tensor, "s seen_t d"]],
        norm: Any,
        pixels: Float[Tensor, "r c h w"],
        latent: dict[str, Any],
        full: bool,
    ) -> ForwardView:
        views, (rows, columns) = len(latent["views"]) if "views" in latent else 1, self.shape(pixels)
        if len(pixels) % views:
            raise ValueError(f"pixel_values: {len(pixels)} rows are not {views} views of each; mend the collator")
        p, keep = rows * columns, None if full else latent.get("keep")
        segments = torch.arange(views, device=pixels.device).repeat_interleave(1 + p).expand(len(pixels) // views, -1)
        if keep is not None:
            there = torch.zeros(len(keep), p + 1, dtype=torch.bool, device=keep.device)
            there = there.scatter(1, torch.where(keep >= 0, keep, p), True)[:, :p]
            there = torch.cat([there.new_ones(len(keep), 1), there], 1).reshape(segments.shape)
            segments = torch.where(there, segments, -1)
        taught = latent.get("taught") if full else None
        run = views if taught is None else len(taught)
        spread = partial(_at_their_places, taught=taught, views=views)
        line = [torch.arange(count, device=pixels.device) for count in (rows, columns)]
        places = torch.cat([torch.full((1, 2), -1, device=pixels.device), torch.cartesian_prod(*line)])
        return ForwardView(
            states={depth: spread(_laid_out(state, keep, p, run)) for depth, state in states.items()},
            segments=segments,
            sets={name: value for name, value in latent.items() if name not in NO_SETS},
            norm=norm,
            tapped=states,
            places=places.repeat(views, 1),
            pixels=partial(self.cut, pixels, views),
        )

    def cut(self, pixels: Float[Tensor, "r c h w"], views: int) -> Float[Tensor, "b t e"]:
        """The pixels of every position, channels last; a class token has none (zeros)."""
        (rows, columns), (high, wide) = self.shape(pixels), self.patch
        pieces = pixels.unflatten(3, (columns, wide)).unflatten(2, (rows, high))  # r c rows high columns wide
        pieces = pieces.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)
        pieces = torch.cat([torch.zeros_like(pieces[:, :1]), pieces], 1)
        return pieces.reshape(len(pixels) // views, -1, self.data_dim)


def _at_their_places(
    state: Float[Tensor, "b seen_t d"], taught: Int[Tensor, " w"] | None, views: int
) -> Float[Tensor, "b t d"]:
    """Views that were run at their places among all views."""
    if taught is None:
        return state
    seen = state.unflatten(1, (len(taught), -1))
    table = seen.new_full((len(seen), views, *seen.shape[2:]), torch.nan)
    return table.index_copy(1, taught, seen).flatten(1, 2)


def _laid_out(
    state: Float[Tensor, "r seen_t d"], keep: Int[Tensor, "r k"] | None, p: int, views: int
) -> Float[Tensor, "b t d"]:
    front = state.shape[1] - (p if keep is None else keep.shape[1])
    if front == 1 and keep is None:
        return state.reshape(-1, views * state.shape[1], state.shape[-1])
    patches = state[:, front:]
    if keep is not None:
        # padding goes to a slot that is cut off
        places = torch.where(keep >= 0, keep, p)[..., None].expand_as(patches)
        patches = patches.new_zeros(len(keep), p + 1, patches.shape[-1]).scatter(1, places, patches)[:, :p]
    if front:
        first = state[:, :1]
    else:
        seen = p if keep is None else (keep >= 0).sum(1)[:, None, None]
        first = patches.sum(1, keepdim=True) / seen
    return torch.cat([first, patches], 1).reshape(-1, views * (1 + p), state.shape[-1])
