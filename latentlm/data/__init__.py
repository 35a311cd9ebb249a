"""Data parts: documents to train on, spans in them, test prompts, and the way from documents to batches."""

from latentlm.data.images import Images
from latentlm.data.published.instructions import Instructions
from latentlm.data.published.name_description import NameDescription
from latentlm.data.published.parent_child import ParentChild
from latentlm.data.published.thinking_bias import ThinkingBias
from latentlm.data.questions import Item, find_spans
from latentlm.data.synthetic import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph
from latentlm.data.synthetic.arithmetic import Arithmetic, Problem
from latentlm.data.synthetic.facts import Facts
from latentlm.data.text.collate import Collator
from latentlm.data.text.corpora import Corpus
from latentlm.data.text.dataset_config import (
    AnswerNoise,
    Asks,
    Augmentation,
    GistMask,
    ReverseWords,
    Text,
    TextSource,
    Verifiable,
)
from latentlm.data.text.encode import SETS, encode, encode_dataset
from latentlm.data.text.gist_masking import Gist, hidden_in
from latentlm.data.text.phrase_mining import Phrases
from latentlm.data.text.reverse_training import backwards
from latentlm.data.text.span_pairs import Chunks, Given, Pairs
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer
from latentlm.data.text.word_dropout import WordDropout

Data = Text | Images

__all__ = [
    "SETS",
    "AnswerNoise",
    "Arithmetic",
    "Asks",
    "Augmentation",
    "Binding",
    "Chain",
    "Chunks",
    "Collator",
    "Corpus",
    "Data",
    "Facts",
    "Family",
    "Gist",
    "GistMask",
    "Given",
    "IdentityBridge",
    "Images",
    "Instructions",
    "Item",
    "NameDescription",
    "Pairs",
    "ParentChild",
    "Phrases",
    "Problem",
    "Retrieval",
    "ReverseWords",
    "StarGraph",
    "Text",
    "TextSource",
    "ThinkingBias",
    "Verifiable",
    "WordDropout",
    "backwards",
    "bpe_tokenizer",
    "encode",
    "encode_dataset",
    "find_spans",
    "hidden_in",
    "word_tokenizer",
]
