"""From a recipe's data to what a trainer reads: documents and a tokenizer, or images and their processor."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import nn
from transformers import PreTrainedConfig

from latentlm.attach.leak_checks import mixes_segments, sees_hidden
from latentlm.backbones.geometry import geometry
from latentlm.components.attention_mask import READ
from latentlm.config.schema import ConfigError
from latentlm.data import (
    Annotated,
    Collator,
    Document,
    Grammar,
    Images,
    Mixture,
    Text,
    augment_documents,
    augment_examples,
    encode_dataset,
    finders,
)
from latentlm.data.images import ImageStream
from latentlm.data.images import Random as RandomMask
from latentlm.data.text.chat_turns import headers
from latentlm.data.text.token_bytes import token_bytes
from latentlm.experiment.build_model import build_tokenizer
from latentlm.experiment.callbacks import console
from latentlm.experiment.held_out import bytes_per_token
from latentlm.experiment.recipe import Recipe
from latentlm.experiment.run_dir import is_first
from latentlm.experiment.vision_model import told_of_size, with_preprocessing
from latentlm.objective.index_sets import neighbours_read, sets_read
from latentlm.whole_files import write_json


@dataclass(frozen=True)
class Prepared:
    """What a trainer reads, and what belongs to the network that reads it.

    Attributes:
        dataset: examples.
        collator: examples to a batch.
        tokenizer: of the network, where it reads text.
        check: refuses a network that cannot be trained on such batches.
        save: writes what turns raw data into the network's input beside it.
        sample: a batch from all over the data without lone spans or masks, the same for every objective.
        held_out: examples that are not trained on, where the recipe has some.
        bytes_per_token: of those, by the prefix of their metrics, where the tokenizer tells it.
        entropy: what a perfect model would lose on each token of those, in nats, by prefix, where that is known.
    """

    dataset: Any
    collator: Any
    tokenizer: Any
    check: Callable[[nn.Module], None]
    save: Callable[[Path], Any]
    sample: Callable[[], dict]
    held_out: Any = None
    bytes_per_token: Mapping[str, float] = field(default_factory=dict)
    entropy: Mapping[str, float] = field(default_factory=dict)


def prepare(recipe: Recipe, config: PreTrainedConfig) -> Prepared:
    """Images, or texts of one source, checked against the network's config."""
    assert not isinstance(recipe.data, Mixture)
    return (
        _images(recipe, recipe.data, config) if isinstance(recipe.data, Images) else _text(recipe, recipe.data, config)
    )


def _check_batch(recipe: Recipe, images: int) -> None:
    """Refuse one image where a term needs several."""
    if images < 2 and (coupled := recipe.objective.uses_batch_statistics):
        raise ConfigError(
            "training.per_device_train_batch_size: one image has no batch statistics, "
            f"which {coupled[0]} needs; give 2 or more"
        )


def _images(recipe: Recipe, data: Images, config: Any) -> Prepared:
    sizes = geometry(config)
    side, patch = sizes.image[0], sizes.patch[0]
    if sizes.image != (side, side) or sizes.patch != (patch, patch):
        raise ConfigError("model.config: image_size and patch_size must be one number each")
    _check_batch(recipe, recipe.training["per_device_train_batch_size"])  # before images are read or drawn
    data, lines = with_preprocessing(data, recipe.model, config)
    lines += _rarely_masked(data, recipe.training["per_device_train_batch_size"])
    for line in (*told_of_size(recipe.model, config), *lines) if is_first() else ():
        console.print(line)
    try:
        collator = data.collator(side, patch, sizes.channels, recipe.sets, recipe.taught)
        dataset = data.dataset(recipe.training["seed"])
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"data.{error}") from error
    num = None if isinstance(dataset, ImageStream) else len(dataset)
    if num is None and recipe.training["max_steps"] < 1:
        raise ConfigError("training.max_steps: a stream has no length; say how many steps")
    if num == 0:
        raise ConfigError("data: there are no images to train on; check the source")
    _check_batch(recipe, num or 2)
    size = {"height": side, "width": side}
    mean, std = ([*values] * (sizes.channels // len(values)) for values in (collator.mean, collator.std))
    processor = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "size": size}
    processor |= {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    processor |= {"image_mean": mean, "image_std": std}

    def sample() -> dict:
        if isinstance(dataset, ImageStream):
            examples = list(itertools.islice(dataset, 64))
        else:
            examples = [dataset[i] for i in range(0, len(dataset), max(1, len(dataset) // 64))][:64]
        return dataclasses.replace(collator, sets=(), mask=None)(examples)

    return Prepared(
        dataset=dataset,
        collator=collator,
        tokenizer=None,
        check=lambda model: None,
        save=lambda folder: write_json(folder / "preprocessor_config.json", processor),
        sample=sample,
    )


def _rarely_masked(data: Images, batch: int) -> list[str]:
    """A line where many batches have no hidden patch at all."""
    share = data.mask.probability if isinstance(data.mask, RandomMask) else 1.0
    nothing = (1 - share) ** (batch * data.views.num)
    if nothing < 0.01:
        return []
    return [
        f"data.mask.probability: {share:g}, so {nothing:.0%} of the batches hide nothing and train no term on hidden "
        "patches; raise it, or training.per_device_train_batch_size"
    ]


def _text(recipe: Recipe, data: Text, config: PreTrainedConfig) -> Prepared:
    documents, held_out = read_text(recipe, data)
    return encode_text(recipe, data, documents, held_out, build_tokenizer(recipe.model, documents), config)


def read_text(recipe: Recipe, data: Text) -> tuple[list[Document], list[Document]]:
    """Documents to train on, with spans and augmentations, and those held out."""
    documents, held_out = _documents(data, recipe.training["seed"])
    with _told("data.span_pairs"):
        documents = data.span_pairs.mark(documents)
    _check_spans(recipe, data, documents)
    with _told("data.augment"):
        return augment_documents(documents, data.augment), held_out


def encode_text(
    recipe: Recipe,
    data: Text,
    documents: list[Document],
    held_out: list[Document],
    tokenizer: Any,
    config: PreTrainedConfig,
) -> Prepared:
    """Documents of `read_text` as a trainer reads them."""
    seed = recipe.training["seed"]
    shown = track(documents, "encoding", console=console, transient=True, disable=not console.is_terminal)
    options = encoder_options(recipe, data, tokenizer)
    plain = {key: options[key] for key in ("tokenizer", "max_length", "long_documents", "loss_on")}
    with _told("data"):
        dataset = encode_dataset(shown, **options)
        kept = encode_dataset(held_out, **plain) if held_out else None
    _check_neighbours(recipe, dataset)
    size = None if kept is None else bytes_per_token(kept, token_bytes(tokenizer))
    collator = build_collator(recipe, data, tokenizer)
    for examples in filter(None, (dataset, kept)):
        _check_lengths(config, collator, examples)
    with _told("data.augment"):
        augmented = augment_examples(dataset, data.augment, seed)
    return Prepared(
        dataset=augmented,
        collator=collator,
        tokenizer=tokenizer,
        check=partial(_check_reading, collator, dataset, data),
        save=tokenizer.save_pretrained,
        sample=partial(_sample, dataset, collator),
        held_out=kept,
        bytes_per_token={"eval": size} if size else {},
        entropy=_entropy(data, held_out, kept),
    )


def _entropy(data: Text, documents: list[Document], examples: Any) -> dict[str, float]:
    """Of the tokens of a grammar's held-out sentences, where a token is a symbol; their end is certain."""
    grammar = data.part
    if not documents or not isinstance(grammar, Grammar):
        return {}
    if any(len(ids) != grammar.length + 1 for ids in examples["input_ids"]):
        return {}
    known = grammar.surprise(np.array([grammar.read(document.text) for document in documents]))
    return {"eval": float(known[:, 1:].sum()) / (len(documents) * grammar.length)}


def encoder_options(recipe: Recipe, data: Text, tokenizer: Any) -> dict[str, Any]:
    """Arguments of `Encoder`."""
    return {
        "tokenizer": tokenizer,
        "max_length": data.max_length,
        "long_documents": data.long_documents,
        "sets": recipe.sets,
        "source_context": data.span_pairs.source_context,
        "token_spans": bool(data.needing("token_spans")),
        "loss_on": data.loss_on,
        "grains": finders(recipe.units[0], data.units),
    }


def build_collator(recipe: Recipe, data: Text | Mixture, tokenizer: Any) -> Collator:
    """With what the objective of the recipe reads."""
    grains, alone = recipe.units
    bos = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    frame = {"headers": headers(tokenizer), "bos": bos} if alone else {}
    return Collator(
        tokenizer.pad_token_id, recipe.sets, data.packing, data.row_length, grains=grains, alone=alone, **frame
    )


def _check_spans(recipe: Recipe, data: Text, documents: list[Document]) -> None:
    """Whether there are spans at all, where something needs them."""
    num = sum(len(document.spans) > 1 for document in documents)
    if not isinstance(data.span_pairs, Annotated) and is_first():
        console.print(f"found spans in {num} of {len(documents)} documents")
    if num:
        return
    hint = "give the documents a column spans, or use data.span_pairs.kind=phrases"
    for name, term in recipe.objective.terms.items():
        if sets := sets_read(term):
            raise ConfigError(f"objective.terms.{name}: reads {sets[0]}, but no document has two spans; {hint}")
    if data.of_spans:
        raise ConfigError(f"data.augment: {data.of_spans[0]} needs spans, but no document has two; {hint}")


def _check_neighbours(recipe: Recipe, dataset: Any) -> None:
    """Whether some text has two units of a grain, where a term relates a unit to the next one."""
    for name, term in recipe.objective.terms.items():
        for grain, offset in neighbours_read([term]):
            if max(len(units[grain]) for units in dataset["units"]) > abs(offset):
                continue
            raise ConfigError(
                f"objective.terms.{name}: reads the {grain} {offset:+d} beside each one, but no text of "
                f"{recipe.data.max_length} tokens has {abs(offset) + 1}; use longer texts, raise data.max_length, "  # type: ignore[union-attr]
                "or leave the term out"
            )


def _sample(dataset: Any, collator: Any, num_tokens: int = 2048) -> dict:
    """Documents from all over the data, without lone spans: the same for every objective."""
    lengths = [len(ids) for ids in dataset["input_ids"]]
    step = max(1, round(sum(lengths) / num_tokens))
    where = range(0, len(lengths), step)
    return _plain(collator)([dataset[i] for i in where])


def _plain(collator: Collator, **changes: Any) -> Collator:
    """The same without spans and units."""
    return dataclasses.replace(collator, sets=(), grains=(), alone=(), **changes)


def _documents(data: Text, seed: int) -> tuple[list[Document], list[Document]]:
    with _told("data"):
        documents, held_out = data.documents(seed)
    if not documents:
        raise ConfigError("data: there are no documents to train on; check the split and the filters")
    return documents, held_out


@contextmanager
def _told(key: str) -> Iterator[None]:
    """One line under the recipe's key."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{key}.{error}" if key == "data" else f"{key}: {error}") from error


def _check_lengths(config: PreTrainedConfig, collator: Collator, dataset: Any) -> None:
    """Refuse what would stop the loop somewhere in the middle."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max(len(ids) for ids in dataset["input_ids"])
    if limit is not None and longest > limit:
        raise ConfigError(f"data.max_length: a document has {longest} tokens, the model {limit} positions; lower it")
    if collator.row_length is not None and (longest := max(map(collator.length, dataset))) > collator.row_length:
        raise ConfigError(
            f"data.row_length: {collator.row_length} is less than the {longest} tokens of the longest document "
            "with its lone spans; raise it, or lower data.max_length"
        )


def _check_reading(collator: Collator, dataset: Any, data: Text, model: Any) -> None:
    """Refuse to train a model that sees what it must not see."""
    _check_isolation(collator, dataset, model)
    if not (masks := data.needing("attention_mask")):
        return
    key = f"data.augment: {masks[0]}"
    if (window := getattr(model.config, "sliding_window", None)) and window < data.max_length:
        raise ConfigError(
            f"{key}: its mask overrides sliding-window attention of {window} tokens; lower data.max_length to that"
        )
    if (how := model.config._attn_implementation) not in READ:
        raise ConfigError(
            f"{key}: attention {how} ignores a separate mask; load with {' or '.join(READ)}, or leave it out"
        )
    longest = max(range(min(len(dataset), 64)), key=lambda i: len(dataset[i]["input_ids"]))
    if sees_hidden(model, torch.tensor([dataset[longest]["input_ids"]])):
        raise ConfigError(f"{key}: {type(model).__name__} ignores the attention mask; leave it out")


def _check_isolation(collator: Collator, dataset: Any, model: nn.Module) -> None:
    """Refuse to train a model that lets packed segments see each other."""
    several = collator.sets or collator.alone or collator.row_length or collator.packing == "padding_free"
    if collator.packing == "none" or not several:
        return
    heads = [dataset[i]["input_ids"][:32] for i in (0, -1)]
    flat = collator.packing == "padding_free"
    pack = _plain(collator, row_length=None if flat else sum(map(len, heads)))
    # twice the same two documents: packed in two rows, because some attention isolates segments in a single row only
    batch = pack([{"input_ids": ids, "labels": ids} for ids in heads * 2])
    if mixes_segments(model, batch):
        other = "" if flat else ", with flash attention padding_free"
        raise ConfigError(f"data.packing: this model mixes packed segments; use data.packing=none{other}")
