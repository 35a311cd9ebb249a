"""A trained text model as a function from texts to the states of every depth: what every look inside starts from."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from latentlm.backbones import find_backbone, hidden_state
from latentlm.config import ConfigError

from .reversal.checkpoint import load

Place = Literal["last", "mean"]


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
        """States ``[n depths d]``, float32 on the CPU, at the last token of each text (or span), or their mean.

        Args:
            texts: what is read, each by itself.
            at: ``last`` token or ``mean`` over tokens; special tokens that close a text do not count.
            spans: characters ``(start, end)`` of each text to read at; None: all of it.
            depths: blocks; None: all, 0 included.
            batch_size: texts in a forward; does not change the result.
        """
        depths = list(range(self.num_layers + 1)) if depths is None else list(depths)
        if bad := [depth for depth in depths if not 0 <= depth <= self.num_layers]:
            raise ValueError(
                f"depths: {self.name} has {self.num_layers} blocks, not {bad[0]}; use 0..{self.num_layers}"
            )
        if not texts:
            raise ValueError("texts: there are none to read")
        if self.cache is None:
            return self._read(texts, at, spans, depths, batch_size)
        key = hashlib.sha256(repr((self._fingerprint(), list(texts), at, spans, depths)).encode()).hexdigest()[:32]
        file = self.cache / f"{key}.safetensors"
        if not file.is_file():
            found = self._read(texts, at, spans, depths, batch_size)
            self.cache.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.partial")
            save_file({"states": found}, partial)
            partial.replace(file)  # a reader never sees half a file
        return load_file(file)["states"]

    def _fingerprint(self) -> str:
        if self._key is None:
            digest = hashlib.blake2b()
            for name, weight in sorted(self.model.state_dict().items()):
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
            self._key = digest.hexdigest()
        return self._key

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
        chosen = [self._tokens(encoded, i, text, spans and spans[i]) for i, text in enumerate(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(encoded["input_ids"][i]))
        out = torch.empty(len(texts), len(depths), self.dim)
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        shown = Console(stderr=True)
        for rows in track(chunks, f"read {self.name}", transient=True, console=shown, disable=not shown.is_terminal):
            found = self._forward([encoded["input_ids"][i] for i in rows], depths)
            for place, i in enumerate(rows):
                tokens = chosen[i][-1:] if at == "last" else chosen[i]
                out[i] = found[:, place, tokens].float().mean(1).cpu()
        if not out.isfinite().all():
            i, k, _ = (~out.isfinite()).nonzero()[0].tolist()
            where = f"states at depth {depths[k]} of {texts[i][-60:]!r}"
            raise ValueError(f"{self.name}: {where} are not finite: the weights have diverged, nothing can be read")
        return out

    def _tokens(self, encoded: Any, i: int, text: str, span: tuple[int, int] | None) -> list[int]:
        start, end = span or (0, len(text))
        offsets, special = encoded["offset_mapping"][i], encoded["special_tokens_mask"][i]
        found = [k for k, (low, high) in enumerate(offsets) if not special[k] and low < end and high > start]
        if not found:
            raise ValueError(f"spans: [{start}, {end}] of {text!r} holds no token; give characters of a word")
        return found

    def _forward(self, rows: list[list[int]], depths: list[int]) -> Tensor:
        """States ``[depths b t d]``, padded on the right."""
        length, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.model.device)
        seen: dict[int, Tensor] = {}
        layers = self.backbone.layers
        hooks = [layers[k - 1].register_forward_hook(_keep(seen, k)) for k in depths if k]
        if 0 in depths:
            hooks.append(layers[0].register_forward_pre_hook(_keep_input(seen), with_kwargs=True))
        try:
            self.backbone.decoder(input_ids=ids, attention_mask=mask)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack([seen[depth] for depth in depths])


def load_encoder(name: str, device: str | None = None) -> TextEncoder:
    """The network of a run folder, a Hugging Face folder (adapters are merged into their base) or a hub name."""
    folder = Path(name)
    is_run = (folder / "recipe.yaml").is_file()
    if is_run and not (folder / "model").is_dir():
        raise ConfigError(f"{name}: has no model yet; finish it with: latentlm train {name} run.resume=true")
    path = str(folder / "model") if is_run else name
    if (Path(path) / "adapter_config.json").is_file():
        from peft import AutoPeftModelForCausalLM

        model: Any = AutoPeftModelForCausalLM.from_pretrained(path)
        model, tokenizer = model.merge_and_unload(), AutoTokenizer.from_pretrained(path)
    elif set(AutoConfig.from_pretrained(path).architectures or []) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        model, tokenizer = load(path, device)
    else:
        model, tokenizer = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    return TextEncoder(name, model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer)


def _keep_input(seen: dict[int, Tensor]) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        seen[0] = args[0] if args else kwargs["hidden_states"]

    return hook


def _keep(seen: dict[int, Tensor], depth: int) -> Any:
    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        seen[depth] = hidden_state(output)

    return hook
