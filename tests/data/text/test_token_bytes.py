"""Bytes that tokens stand for are those of the text, for both families of tokenizers, and no others have any."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from latentlm.data import bpe_tokenizer, word_tokenizer
from latentlm.data.text.token_bytes import IGNORE, token_bytes

TEXTS = ["the cat sat on the mat", "naïve - 日本語 text 🙂"]


def of_bytes():
    tokenizer = bpe_tokenizer(TEXTS, 290)
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return tokenizer


def of_pieces(prepend=True):
    """Like Llama 2's: blanks as marks, one before the first word, and bytes for what it does not know."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = ["\u2581", *"thecasonmï"]
    pairs = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("a", "t"), ("c", "at"), ("\u2581", "cat")]
    vocab = {piece: i for i, piece in enumerate([*pieces, *letters, *("".join(pair) for pair in pairs)])}
    backend = Tokenizer(models.BPE(vocab, pairs, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("\u2581")] if prepend else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    strip = [decoders.Strip(" ", 1, 0)] if prepend else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


MAKERS = {"bytes": of_bytes, "pieces": of_pieces, "pieces, nothing before": lambda: of_pieces(prepend=False)}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_all_tokens_of_a_text_have_its_bytes(make):
    tokenizer = make()
    sizes = token_bytes(tokenizer)
    assert sizes is not None

    @settings(max_examples=25, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\u0120<"), min_size=1))
    def check(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        closed = [tokenizer.eos_token_id, *ids, tokenizer.eos_token_id]
        assert sizes.count(closed, [IGNORE, *closed[1:]]) == len(text.encode())
        for cut in range(len(ids)):  # in two pieces as in one
            labels = [IGNORE] * (cut + 1) + closed[cut + 1 :]
            rest = [*closed[: cut + 1], *[IGNORE] * (len(closed) - cut - 1)]
            assert sizes.count(closed, labels) + sizes.count(closed, rest) == len(text.encode())

    check()
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert sizes.count(ids, ids) == len(text.encode())


def test_added_words_count_and_special_tokens_do_not():
    tokenizer = of_bytes()
    ids = tokenizer("a<tool>b")["input_ids"] + [tokenizer.eos_token_id]
    assert token_bytes(tokenizer).count(ids, ids) == len("a<tool>b")


def test_tokenizers_that_do_not_keep_the_text_have_none():
    assert token_bytes(word_tokenizer(TEXTS)) is None
