"""From a recipe's data to what a trainer reads, of whatever kind; a mixture is its parts, each with its own terms."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from latentlm.config.schema import ConfigError
from latentlm.data import Document, Text
from latentlm.data.interleave import Mixed, Rows, Streamed
from latentlm.data.mixture import Mixture, Part
from latentlm.data.text.encode import Encoder
from latentlm.data.text.encoding_report import DocumentError, EncodingReport, some
from latentlm.experiment.build_model import build_tokenizer
from latentlm.experiment.datasets import (
    Prepared,
    build_collator,
    encode_text,
    encoder_options,
    prepare,
    read_text,
)
from latentlm.experiment.recipe import Recipe

logger = logging.getLogger(__name__)


def prepare_data(recipe: Recipe, config: PreTrainedConfig) -> Prepared:
    """The data of a recipe, checked against the network's config."""
    if not isinstance(recipe.data, Mixture):
        return prepare(recipe, config)
    data = recipe.data
    owns = [recipe.of_part(part) for part in data.parts]
    texts: list[tuple[list[Document], list[Document]]] = []
    for number, (part, own) in enumerate(zip(data.parts, owns, strict=True)):
        with _told(number, part):
            documents, held_out = read_text(own, _text(own))
            texts.append((documents, part.held_out() if part.streaming else held_out))
    if data.streaming and recipe.model.name is None:
        raise ConfigError("model.name: a tokenizer is not fitted on a stream; name a model, or leave out streaming")
    tokenizer = build_tokenizer(recipe.model, [document for documents, _ in texts for document in documents])
    made = []
    for number, (part, own, (documents, held_out)) in enumerate(zip(data.parts, owns, texts, strict=True)):
        with _told(number, part):
            made.append(encode_text(own, _text(own), documents, held_out, tokenizer, config))
    terms = recipe.objective.terms
    unread = {n: [name for name in terms if name not in own.objective.terms] for n, own in enumerate(owns)}
    collator = dataclasses.replace(
        build_collator(recipe, data, tokenizer), unread={n: t for n, t in unread.items() if t}
    )

    def check(model: nn.Module) -> None:
        for one in made:
            one.check(model)

    named = {part.label: one for part, one in zip(data.parts, made, strict=True) if one.held_out is not None}
    return Prepared(
        dataset=_dataset(recipe, data, owns, made, tokenizer),
        collator=collator,
        tokenizer=tokenizer,
        check=check,
        save=tokenizer.save_pretrained,
        sample=lambda: _sample(made, collator),
        held_out={name: one.held_out for name, one in named.items()} or None,
        bytes_per_token={f"eval_{name}": size for name, one in named.items() for size in one.bytes_per_token.values()},
        entropy={f"eval_{name}": nats for name, one in named.items() for nats in one.entropy.values()},
    )


def _text(own: Recipe) -> Text:
    assert isinstance(own.data, Text)
    return own.data


@contextmanager
def _told(number: int, part: Part) -> Iterator[None]:
    """Which part a mistake is in."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"data.parts[{number}] ({part.label}): {str(error).removeprefix('data.')}") from error


def _sample(made: list[Prepared], collator: Any) -> dict:
    """Documents from all over every part, without lone spans."""
    rows = []
    for one in made:
        step = max(1, len(one.dataset) // 16)
        rows += [one.dataset[i] for i in range(0, len(one.dataset), step)][:16]
    return dataclasses.replace(collator, sets=(), grains=(), alone=(), unread={})(rows)


def _dataset(recipe: Recipe, data: Mixture, owns: list[Recipe], made: list[Prepared], tokenizer: Any) -> Any:
    """All parts, drawn from by weight; with a stream among them, all are streams."""
    seed = recipe.training["seed"]
    if not data.streaming:
        return Mixed([one.dataset for one in made], data.shares, data.stopping, seed)
    from datasets import Dataset

    streams: list[Any] = []
    makers: list[Rows] = []
    for part, own, one in zip(data.parts, owns, made, strict=True):
        if part.streaming:
            stream, read = part.stream.stream()
            makers.append(_Examples(read, Encoder(**encoder_options(own, _text(own), tokenizer)), part.label))
        else:
            stream = Dataset.from_dict({"row": range(len(one.dataset))}).to_iterable_dataset()
            makers.append(_Kept(one.dataset))
        streams.append(stream)
    return Streamed(streams, makers, data.shares, data.stopping, seed, [one.dataset for one in made])


class _Kept:
    """Examples in memory, by their number."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __call__(self, batch: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
        return self.dataset.__getitems__(list(batch["row"]))


class _Examples:
    """Rows of a stream -> examples; rows that cannot be used are left out, the first are named, all are counted."""

    def __init__(self, read: Callable[[Mapping[str, Any], str], Document | None], encoder: Encoder, label: str):
        self.read, self.encoder, self.label = read, encoder, label
        self.seen, self.unusable = 0, 0

    def __call__(self, batch: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
        names = list(batch)
        found: list[dict[str, Any]] = []
        for values in zip(*batch.values(), strict=True):
            self.seen += 1
            try:
                document = self.read(dict(zip(names, values, strict=True)), f"row {self.seen}")
                examples = [] if document is None else self.encoder(document, EncodingReport())
                found += [example.to_row() for example in examples]
            except DocumentError as error:
                self.unusable += 1
                if str(self.unusable).strip("0") == "1":  # 1, 10, 100, ...
                    told = some([str(error)])
                    logger.warning("%s: %d of %d rows left out: %s", self.label, self.unusable, self.seen, told)
        return found
