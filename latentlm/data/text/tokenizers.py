"""Small tokenizers fitted on the texts at hand."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from latentlm.components.units import ROLES

# every turn begins with its speaker and ends with eos; what the assistant says is marked for masks of its tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}


def word_tokenizer(texts: Iterable[str], lowercase: bool = False, chat: bool = False) -> Any:
    """One id for every word and punctuation mark of `texts`; decoding joins words with single spaces.

    Args:
        texts: that it is fitted on.
        lowercase: case is forgotten.
        chat: also a chat template and its special tokens.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk_token"]))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # "a , b ." -> "a, b."
    trainer = trainers.WordLevelTrainer(vocab_size=2**31, show_progress=False, special_tokens=list(_SPECIAL.values()))
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() == len(_SPECIAL):
        raise ValueError("texts: no words to fit a tokenizer on; give at least one text")
    return _wrapped(tokenizer, _SPECIAL, chat)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int, chat: bool = False) -> Any:
    """Byte-level pairs, at most `vocab_size` ids; any text can be encoded and decodes to itself.

    Args:
        texts: that it is fitted on.
        vocab_size: ids, besides those of `chat`.
        chat: also a chat template and its special tokens.
    """
    special = {key: token for key, token in _SPECIAL.items() if key != "unk_token"}
    smallest = 256 + len(special)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size: {vocab_size} does not hold all bytes; set it to {smallest} or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        show_progress=False,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer, special, chat)


def _wrapped(tokenizer: Tokenizer, special: dict[str, str], chat: bool) -> Any:
    from transformers import PreTrainedTokenizerFast  # slow to import, and checking a recipe does not need it

    if not chat:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    tokens = [f"<|{role}|>" for role in ROLES]
    tokenizer.add_special_tokens(tokens)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=tokens, chat_template=CHAT_TEMPLATE, **special
    )
