"""What makes a score mean less than it says: told in the result and below the table."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from latentlm.data import Question
from latentlm_evals.models.generation import answer_ids, prompt_ids


def warnings_of(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> list[str]:
    """Named warnings, one line each.

    ``split_in_context``: answers whose tokens differ when prompt and answer are read in one go. They are scored as
    tokens of their own, which is then not how the model met them in training.
    ``unknown_words``: prompts or answers with a word that the tokenizer does not know.
    """
    split = [question for question in questions if _splits(tokenizer, question)]
    unknown = [question for question in questions if _unknown(tokenizer, question)]
    told = []
    for name, found, what in (
        ("split_in_context", split, "the tokenizer reads the answer differently behind its prompt"),
        ("unknown_words", unknown, "the tokenizer does not know a word of the prompt or answer"),
    ):
        if found:
            example = (found[0].prompt[-30:] + found[0].answer)[:70]
            told.append(f"{name}: in {len(found)} of {len(questions)} questions {what}, e.g. {example!r}")
    return told


def _splits(tokenizer: PreTrainedTokenizerBase, question: Question) -> bool:
    apart = prompt_ids(tokenizer, question.prompt) + answer_ids(tokenizer, question.answer)
    return prompt_ids(tokenizer, question.prompt + question.answer) != apart


def _unknown(tokenizer: PreTrainedTokenizerBase, question: Question) -> bool:
    return tokenizer.unk_token_id is not None and tokenizer.unk_token_id in (
        prompt_ids(tokenizer, question.prompt) + answer_ids(tokenizer, question.answer)
    )
