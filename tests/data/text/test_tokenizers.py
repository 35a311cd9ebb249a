"""Fitted tokenizers: distinct special ids, prompts continue, decoding gives the text back."""

import pytest

from latentlm.data.synthetic.facts import Facts
from latentlm.data.text.tokenizers import bpe_tokenizer, word_tokenizer

FACTS = Facts(num_a_to_b=5, num_b_to_a=5, num_both=3)
TEXTS = [document.text for document in FACTS.documents()]


@pytest.mark.parametrize("tokenizer", [word_tokenizer(TEXTS), bpe_tokenizer(TEXTS, 500)], ids=["word", "bpe"])
def test_text_comes_back_and_prompt_plus_answer_is_their_joint_text(tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    for question in FACTS.questions():
        prompt, joint = (
            tokenizer(question.prompt)["input_ids"],
            tokenizer(question.prompt + question.answer)["input_ids"],
        )
        assert joint[: len(prompt)] == prompt
        assert tokenizer.decode(joint[len(prompt) :]).strip() == question.answer.strip()


def test_words_are_whole_ids_and_case_can_be_ignored():
    tokenizer = word_tokenizer(["Vela Dorn is here.", "Here is Vela."], lowercase=True)
    assert tokenizer.tokenize("HERE is vela.") == ["here", "is", "vela", "."]
    assert tokenizer("nobody")["input_ids"] == [tokenizer.unk_token_id]
    assert "Here" in word_tokenizer(["Here is Vela."]).get_vocab()


def test_bytes_cover_any_text_and_the_size_is_kept():
    tokenizer = bpe_tokenizer(TEXTS, 300)
    assert len(tokenizer) == 300
    assert tokenizer.decode(tokenizer("Zoë, 東京!")["input_ids"]) == "Zoë, 東京!"


def test_impossible_fits_are_named():
    with pytest.raises(ValueError, match=r"vocab_size: 100 .* 258"):
        bpe_tokenizer(TEXTS, 100)
    with pytest.raises(ValueError, match="texts: no words"):
        word_tokenizer([])
