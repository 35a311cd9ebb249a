"""Data parts: documents to train on, spans in them, test prompts, and the way from documents to batches."""

from latentlm.data.documents import Document, SpanEdit, conversation
from latentlm.data.images import Images
from latentlm.data.mixture import Mixture, Part
from latentlm.data.published.instructions import Instructions
from latentlm.data.published.name_description import NameDescription
from latentlm.data.published.parent_child import ParentChild
from latentlm.data.published.thinking_bias import ThinkingBias
from latentlm.data.questions import Question, find_spans
from latentlm.data.synthetic import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph
from latentlm.data.synthetic.arithmetic import Arithmetic, Problem
from latentlm.data.synthetic.facts import Facts
from latentlm.data.synthetic.grammar import Grammar
from latentlm.data.synthetic.people import People
from latentlm.data.text.augment import Augmentation, augment_documents, augment_examples
from latentlm.data.text.collate import Collator, Packing
from latentlm.data.text.corpora import Corpus
from latentlm.data.text.dataset_config import QuestionSource, Text, TextSource, VerifiableSource
from latentlm.data.text.encode import SETS, encode, encode_dataset
from latentlm.data.text.examples import Example, SpanPair
from latentlm.data.text.phrase_mining import Phrases
from latentlm.data.text.span_pairs import Annotated, Chunks, SpanPairs
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer
from latentlm.data.text.unit_collator import UnitCollator
from latentlm.data.text.units import Chunk, Pattern, Sentence, UnitRule, finders

Data = Text | Images | Mixture

__all__ = [
    "SETS",
    "Annotated",
    "Arithmetic",
    "Augmentation",
    "Binding",
    "Chain",
    "Chunk",
    "Chunks",
    "Collator",
    "Corpus",
    "Data",
    "Document",
    "Example",
    "Facts",
    "Family",
    "Grammar",
    "IdentityBridge",
    "Images",
    "Instructions",
    "Mixture",
    "NameDescription",
    "Packing",
    "ParentChild",
    "Part",
    "Pattern",
    "People",
    "Phrases",
    "Problem",
    "Question",
    "QuestionSource",
    "Retrieval",
    "Sentence",
    "SpanEdit",
    "SpanPair",
    "SpanPairs",
    "StarGraph",
    "Text",
    "TextSource",
    "ThinkingBias",
    "UnitCollator",
    "UnitRule",
    "VerifiableSource",
    "augment_documents",
    "augment_examples",
    "bpe_tokenizer",
    "conversation",
    "encode",
    "encode_dataset",
    "find_spans",
    "finders",
    "word_tokenizer",
]
