"""Data parts: documents to train on, spans in them, test prompts, and the way from documents to batches."""

from latentlm.data.arithmetic import Arithmetic, Problem
from latentlm.data.collate import Collator
from latentlm.data.encode import SETS, encode, encode_dataset
from latentlm.data.facts import Facts
from latentlm.data.gist import Gist, hidden_in
from latentlm.data.images import Images
from latentlm.data.instructions import Instructions
from latentlm.data.items import Item, find_spans
from latentlm.data.name_description import NameDescription
from latentlm.data.pairs import Chunks, Given, Pairs
from latentlm.data.parent_child import ParentChild
from latentlm.data.phrases import Phrases
from latentlm.data.reverse_training import backwards
from latentlm.data.text import Chat, Text
from latentlm.data.thinking_bias import ThinkingBias
from latentlm.data.tokenizers import bpe_tokenizer, word_tokenizer
from latentlm.data.word_dropout import WordDropout
from latentlm.data.worlds import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph

Asks = (  # data with test items
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
Verifiable = Arithmetic  # data that can check an answer
Data = Asks | Text | Chat | Images

__all__ = [
    "SETS",
    "Arithmetic",
    "Asks",
    "Binding",
    "Chain",
    "Chat",
    "Chunks",
    "Collator",
    "Data",
    "Facts",
    "Family",
    "Gist",
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
    "StarGraph",
    "Text",
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
