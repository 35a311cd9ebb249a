"""Data parts: documents to train on, spans in them, test prompts, and the way from documents to batches."""

from latentlm.data.collate import Collator
from latentlm.data.encode import SETS, encode, encode_dataset
from latentlm.data.facts import Facts
from latentlm.data.images import Images
from latentlm.data.items import Item, find_spans
from latentlm.data.name_description import NameDescription
from latentlm.data.pairs import Chunks, Given, Pairs
from latentlm.data.text import Chat, Text
from latentlm.data.tokenizers import bpe_tokenizer, word_tokenizer
from latentlm.data.worlds import Binding, Chain, Family, IdentityBridge, Retrieval, StarGraph

Data = (
    Facts | NameDescription | Binding | IdentityBridge | Family | Retrieval | Chain | StarGraph | Text | Chat
)  # fmt: skip

__all__ = [
    "SETS",
    "Binding",
    "Chain",
    "Chat",
    "Chunks",
    "Collator",
    "Data",
    "Facts",
    "Family",
    "Given",
    "IdentityBridge",
    "Images",
    "Item",
    "NameDescription",
    "Pairs",
    "Retrieval",
    "StarGraph",
    "Text",
    "bpe_tokenizer",
    "encode",
    "encode_dataset",
    "find_spans",
    "word_tokenizer",
]
