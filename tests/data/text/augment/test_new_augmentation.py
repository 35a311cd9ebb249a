"""A new augmentation is a class: this one, defined here, goes from documents to batches with nothing else changed."""

import random
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch.utils.data import DataLoader

from latentlm.config.schema import parse
from latentlm.data import (
    SETS,
    Augmentation,
    Collator,
    Document,
    Facts,
    augment_documents,
    augment_examples,
    encode_dataset,
    word_tokenizer,
)
from latentlm.data.text.augment import unmet_need
from latentlm.data.text.augment.base import Draws, Needs, TextAugmentation
from latentlm.data.text.examples import Example

DOCUMENTS = Facts(num_a_to_b=4, num_b_to_a=4, num_both=3, templates_per_fact=3).documents()


@dataclass(frozen=True)
class Shout(TextAugmentation):
    """Some documents in capitals; in every epoch some tokens of the rest are not predicted."""

    prob: float = 0.5
    seed: int = 0
    needs: ClassVar[tuple[Needs, ...]] = ("token_spans",)

    def documents(self, documents, rng):
        return [replace(d, text=d.text.upper()) if rng.random() < self.prob else d for d in documents]

    def examples(self, dataset):
        return self._unlabel

    def _unlabel(self, example: Example, draws: Draws) -> Example:
        drawn = draws.uniform("unlabel", len(example.labels)) < self.prob
        return replace(example, labels=[-100 if d else label for d, label in zip(drawn, example.labels, strict=True)])


def _dataset(seed=0):
    augment = [parse(Augmentation | Shout, {"kind": "shout", "prob": 0.3}, "augment")]
    documents = augment_documents(DOCUMENTS, augment)
    assert documents == augment_documents(DOCUMENTS, augment)
    assert 0 < sum(document.text.isupper() for document in documents) < len(documents)
    tokenizer = word_tokenizer([document.text for document in documents])
    dataset = encode_dataset(documents, tokenizer, 64, SETS, token_spans=True)
    return augment_examples(dataset, augment, seed), Collator(tokenizer.pad_token_id, SETS)


def test_it_goes_all_the_way_by_any_number_of_workers():
    dataset, collator = _dataset()
    batches = [
        list(DataLoader(dataset, batch_size=8, collate_fn=collator, num_workers=num_workers)) for num_workers in (0, 2)
    ]
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one["input_ids"], two["input_ids"])
        assert torch.equal(one["labels"], two["labels"])
    labels = torch.cat([batch["labels"].flatten() for batch in batches[0]])
    full = sum(sum(label != -100 for label in row["labels"]) for row in dataset.dataset)
    assert 0.6 * full < int((labels != -100).sum()) < 0.8 * full


def test_draws_belong_to_seed_epoch_and_example():
    dataset, _ = _dataset()
    first = dataset.__getitems__([3, 5])
    assert first == [dataset[3], dataset[5]]
    dataset.set_epoch(1)
    assert dataset[3] != first[0]
    assert _dataset(seed=1)[0][3] != first[0]


def test_what_it_needs_is_asked_for_by_its_kind():
    assert unmet_need([Shout()], ["isolated_source"]) == ("shout", "token_spans")
    assert unmet_need([Shout()], ["token_spans"]) is None


def test_the_documents_stage_has_its_own_random_numbers():
    rng = random.Random("Shout/7")
    document = Document("a b")
    assert augment_documents([document] * 20, [Shout(seed=7)]) == Shout(seed=7).documents([document] * 20, rng)
