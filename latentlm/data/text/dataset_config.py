"""The ``data`` block of a recipe on texts: where documents come from, how they are batched, and what is held out."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

from latentlm.config.schema import ConfigError, kind_of
from latentlm.data.documents import Document
from latentlm.data.published.instructions import Instructions
from latentlm.data.published.name_description import NameDescription
from latentlm.data.published.parent_child import ParentChild
from latentlm.data.published.thinking_bias import ThinkingBias
from latentlm.data.synthetic import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph
from latentlm.data.synthetic.arithmetic import Arithmetic
from latentlm.data.synthetic.facts import Facts
from latentlm.data.synthetic.grammar import Grammar
from latentlm.data.synthetic.people import People
from latentlm.data.text.augment import Augmentation, unmet_need
from latentlm.data.text.augment.base import Needs
from latentlm.data.text.collate import Packing
from latentlm.data.text.corpora import FORMATS, Corpus
from latentlm.data.text.encode import SETS, LossOn
from latentlm.data.text.encoding_report import LongDocuments
from latentlm.data.text.span_pairs import Annotated, SpanPairs
from latentlm.data.text.units import STANDARD, UnitRule

_WHY: dict[Needs, str] = {
    "isolated_source": "changes isolated sources, there are none with span_pairs.source_context {}; use isolated",
    "attention_mask": "hides positions by a mask, packing {} has none; use packed or none",
}

QuestionSource = (  # data with questions
    Facts
    | NameDescription
    | Instructions
    | ThinkingBias
    | ParentChild
    | Binding
    | IdentityBridge
    | Family
    | Retrieval
    | Chain
    | StarGraph
    | Arithmetic
)
VerifiableSource = Arithmetic  # data that can check an answer
TextSource = QuestionSource | People | Corpus | Grammar


@dataclass(frozen=True)
class Text:
    """Documents for a language model.

    Args:
        source: a file, folder or hub data set, whose columns decide how it is read (text, messages, or prompt and
            completion), or a part such as ``{kind: facts}``.
        max_length: most tokens of an example.
        long_documents: ``split`` cuts longer ones into pieces, ``truncate`` keeps their first tokens, ``drop`` leaves
            them out; training says how many there are.
        loss_on: which tokens the next-token loss predicts: ``assistant`` (the assistant's turns of conversations, each
            with the token that ends it), ``last_assistant`` (the last of them), ``completion`` (what follows a
            prompt), ``all``, or ``auto``: one of the three, by what a document is.
        units: how the units of a grain are found where the usual rule does not fit: another ``size`` of chunks, another
            ``language`` of sentences, a ``pattern`` that marks them, or a second grain with a name of its own.
        packing: ``packed`` keeps several segments in a row (documents never see each other); ``padding_free`` keeps
            all of them in one row, as flash attention needs it; ``none`` gives each its own row, for models that mix
            segments.
        row_length: tokens in a packed row; without it a row is one document with its isolated spans.
        span_pairs: which spans are related, and how they are read.
        augment: augmentations, applied in this order.
        validation: held out, for the next-token loss on texts that are not trained on: a share of the documents, a
            file, a split of the source, or ``held_out``: the sentences that a grammar keeps back.
    """

    source: str | TextSource
    max_length: int = 256
    long_documents: LongDocuments = "split"
    loss_on: LossOn = "auto"
    units: tuple[UnitRule, ...] = ()
    packing: Packing = "packed"
    row_length: int | None = None
    span_pairs: SpanPairs = Annotated()
    augment: tuple[Augmentation, ...] = ()
    validation: float | str | None = None

    def __post_init__(self):
        for key in ("max_length", "row_length"):
            if (value := getattr(self, key)) is not None and value < 2:
                raise ValueError(f"{key}: {value}; set it to 2 or more")
        if self.row_length is not None and self.packing != "packed":
            raise ValueError("row_length: goes with packing packed; leave it out or use packing: packed")
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(f"validation: {self.validation} is a share; set it above 0 and below 1")
        grains = [rule.grain for rule in self.units]
        if twice := [grain for grain in grains if grains.count(grain) > 1]:
            raise ValueError(f"units: the grain '{twice[0]}' is given twice; give one of them another name")
        kinds = [kind_of(type(part)) for part in self.augment]
        if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
            raise ValueError(f"augment: {twice[0]} is given twice; leave one out")
        self._check_needs()

    def _check_needs(self) -> None:
        context = self.span_pairs.source_context
        have: list[Needs] = ["token_spans", "units_alone"]  # the second is the objective's, see the recipe
        if context == "isolated":
            have.append("isolated_source")
        if self.packing != "padding_free":
            have.append("attention_mask")
        if unmet := unmet_need(self.augment, have):
            kind, need = unmet
            value = context if need == "isolated_source" else self.packing
            raise ValueError(f"augment: {kind} {_WHY[need].format(value)}")

    @property
    def part(self) -> TextSource:
        """The source as a part."""
        return Corpus(self.source) if isinstance(self.source, str) else self.source

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets that batches can have, as far as can be told before the source is read."""
        return self.part.sets if isinstance(self.span_pairs, Annotated) else SETS

    @property
    def grains(self) -> tuple[str, ...]:
        """Grains of units that terms can name."""
        return (*STANDARD, *(rule.grain for rule in self.units if rule.grain not in STANDARD))

    def needing(self, need: Needs) -> list[str]:
        """Kinds of the augmentations that need something."""
        return [kind_of(type(part)) for part in self.augment if need in part.needs]

    @property
    def of_spans(self) -> list[str]:
        """Kinds of the augmentations that need spans."""
        return self.needing("token_spans") + self.needing("isolated_source")

    def documents(self, seed: int = 0) -> tuple[list[Document], list[Document]]:
        """Documents to train on, and those held out; `seed` draws a share."""
        train = _read(self.part)
        if self.validation is None:
            return train, []
        if self.validation == "held_out" and isinstance(self.part, Grammar):
            return train, self.part.held_out_documents()
        if isinstance(self.validation, str):
            return train, _read(self.named(self.validation))
        order = random.Random(f"validation/{seed}").sample(range(len(train)), len(train))
        count = round(self.validation * len(train))
        if not 0 < count < len(train):
            raise ValueError(f"validation: {self.validation} of {len(train)} documents is {count}; give another share")
        held_out = set(order[:count])
        return [train[i] for i in range(len(train)) if i not in held_out], [train[i] for i in sorted(held_out)]

    def named(self, validation: str) -> Corpus:
        """A file, or a split of the source."""
        if Path(validation).suffix in FORMATS or Path(validation).exists():
            return Corpus(validation)
        if not isinstance(self.part, Corpus):
            instead = "use held_out" if isinstance(self.part, Grammar) else "give a share"
            raise ValueError(f"validation: {validation} is not a file, and a generated set has no splits; {instead}")
        return replace(self.part, split=validation)


def _read(part: TextSource) -> list[Document]:
    """Documents of a part, whose mistakes are those of the key ``source``."""
    try:
        return part.documents()
    except ConfigError:
        raise
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith("source") else f"source.{error}") from error
