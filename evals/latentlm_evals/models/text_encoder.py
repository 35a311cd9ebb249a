"""A trained text model as a function from texts to the states of every depth: what every look inside starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import AutoModel

from latentlm.backbones import find_backbone
from latentlm.backbones.load import load_config, load_weights, readable
from latentlm.experiment.recipe import load_recipe
from latentlm_evals.models.hidden_states import check_depths, check_finite, fingerprint, kept, tapped
from latentlm_evals.models.image_encoder import ImageEncoder, load_image_encoder
from latentlm_evals.models.load import CAUSAL, device_of, dtype_of, is_adapter, load, load_adapter, load_tokenizer
from latentlm_evals.models.run_dir import is_run, weights_of

Place = Literal["last", "mean", "cls"]


class TextEncoder:
    """States of a language model or text encoder; depth 0 is the input of the first block, k the raw output of block k.

    Attributes:
        name: where it comes from.
        model, tokenizer: the network, on the device where it runs, and its tokenizer.
        num_layers, dim: of the network.
        cache: folder in which states are kept, if any.
    """

    kind = "text"

    def __init__(self, name: str, model: Any, tokenizer: Any, cache: Path | None = None):
        if not tokenizer.is_fast:
            raise ValueError(f"{name}: its tokenizer gives no character offsets; save the fast one beside the weights")
        self.name, self.model, self.tokenizer, self.cache = name, model.eval(), tokenizer, cache
        self.backbone = find_backbone(model)
        self.num_layers, self.dim = self.backbone.num_layers, self.backbone.dim
        self._key: str | None = None

    def random_init(self, seed: int) -> "TextEncoder":
        """The same architecture and tokenizer with fresh weights: the null of everything read off the states."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = type(self.model)(self.model.config)
        model.to(device=self.model.device, dtype=self.model.dtype)
        return TextEncoder(f"{self.name} (random init)", model, self.tokenizer, self.cache)

    def cached(self, folder: str | Path) -> "TextEncoder":
        """The same, with states kept on disk: the next call with equal weights, texts and settings reads them."""
        return TextEncoder(self.name, self.model, self.tokenizer, Path(folder))

    def states(
        self,
        texts: Sequence[str],
        at: Place = "last",
        spans: Sequence[tuple[int, int]] | None = None,
        depths: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> Tensor:
        """States ``[n depths d]``, float32 on the CPU, at the last token of each text or span, or their mean.

        Args:
            texts: what is read, each by itself.
            at: ``last`` token or ``mean`` over tokens; special tokens do not count; the ``cls`` token.
            spans: characters ``(start, end)`` of each text to read at; None: all of it.
            depths: blocks; None: all, 0 included.
            batch_size: texts in a forward; does not change the result.
        """
        depths = check_depths(self.name, self.num_layers, depths)
        if not texts:
            raise ValueError("texts: there are none to read")
        if at not in ("last", "mean", "cls"):
            raise ValueError(f"at: {at} is for images; texts are read at last, mean or cls")
        if spans is not None and len(spans) != len(texts):
            raise ValueError(f"spans: {len(spans)} for {len(texts)} texts; give one (start, end) for each")
        if self.cache is None:
            return self._read(texts, at, spans, depths, batch_size)
        if self._key is None:
            self._key = fingerprint(self.model) + self.tokenizer.backend_tokenizer.to_str()
        asked = repr((self._key, list(texts), at, spans and [tuple(span) for span in spans], depths))
        return kept(self.cache, asked.encode(), lambda: self._read(texts, at, spans, depths, batch_size))

    @torch.inference_mode()
    def _read(
        self,
        texts: Sequence[str],
        at: Place,
        spans: Sequence[tuple[int, int]] | None,
        depths: list[int],
        batch_size: int,
    ) -> Tensor:
        encoded = self.tokenizer(list(texts), return_offsets_mapping=True, return_special_tokens_mask=True)
        chosen = [
            self._tokens(encoded, i, text, at, None if spans is None else spans[i]) for i, text in enumerate(texts)
        ]
        order = sorted(range(len(texts)), key=lambda i: len(encoded["input_ids"][i]))
        out = torch.empty(len(texts), len(depths), self.dim)
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        shown = Console(stderr=True)
        for rows in track(chunks, f"read {self.name}", transient=True, console=shown, disable=not shown.is_terminal):
            out[rows] = self._forward([encoded["input_ids"][i] for i in rows], [chosen[i] for i in rows], depths)
        return check_finite(self.name, out, depths, lambda i: repr(texts[i][-60:]))

    def _tokens(self, encoded: Any, i: int, text: str, at: Place, span: tuple[int, int] | None) -> list[int]:
        ids, special = encoded["input_ids"][i], encoded["special_tokens_mask"][i]
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or len(ids)
        if len(ids) > longest:
            raise ValueError(f"texts: {len(ids)} tokens in {text[:60]!r}, but {self.name} reads {longest}; shorten it")
        if at == "cls":
            if self.tokenizer.cls_token_id not in ids:
                raise ValueError(f"at: {self.name} has no class token; use last or mean")
            return [ids.index(self.tokenizer.cls_token_id)]
        start, end = span or (0, len(text))
        offsets = encoded["offset_mapping"][i]
        found = [k for k, (low, high) in enumerate(offsets) if not special[k] and low < end and high > start]
        if not found:
            raise ValueError(f"spans: [{start}, {end}] of {text!r} holds no token; give characters of a word")
        return found[-1:] if at == "last" else found

    def _forward(self, rows: list[list[int]], chosen: list[list[int]], depths: list[int]) -> Tensor:
        """States ``[b l d]``, each the mean over a row's chosen tokens; rows are padded on the right."""
        length, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.model.device)

        def gather(state: Tensor) -> Tensor:
            return torch.stack([row[tokens].float().mean(0) for row, tokens in zip(state, chosen, strict=True)])

        return tapped(
            lambda: self.backbone.decoder(input_ids=ids, attention_mask=mask), self.backbone.layers, depths, gather
        )


def load_encoder(name: str, device: str | None = None) -> TextEncoder | ImageEncoder:
    """The network of a run folder, a Hugging Face folder (adapters are merged into their base) or a hub name.

    A causal language model, a text encoder or a ViT.
    """
    folder, path, place = Path(name), weights_of(name), device_of(device)
    if folder.is_dir() and not is_adapter(path) and not (Path(path) / "config.json").is_file():
        raise ValueError(f"{name}: no checkpoint in this folder (no config.json, no adapter_config.json)")
    with readable(name):
        if is_adapter(path):
            model: Any = load_adapter(Path(path), place)
        else:
            config = load_config(path)
            if getattr(config, "patch_size", None) is not None:
                return load_image_encoder(name, path, place, load_recipe(name).source if is_run(name) else None)
            model = _plain(name, path, config, device)
    # processors without bfloat16 arithmetic take eight times as long over it, and states are kept as float32 anyway
    model.to(device=place, dtype=torch.float32 if place.type == "cpu" else None)
    return TextEncoder(name, model, load_tokenizer(path))


def _plain(name: str, path: str, config: Any, device: str | None) -> Any:
    if config.is_encoder_decoder:
        raise ValueError(f"{name}: holds a {config.model_type}, an encoder-decoder; name a causal LM, encoder or ViT")
    if set(config.architectures or []) & CAUSAL:
        return load(path, device)[0]
    return load_weights(AutoModel, path, dtype=dtype_of(config, device_of(device)), part=True)
