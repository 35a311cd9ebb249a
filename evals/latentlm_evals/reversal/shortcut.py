"""Shortcut questions for the published sets that have none of their own: is a question answered by its own entity?"""

from collections.abc import Sequence
from dataclasses import replace

from latentlm.data import ParentChild, Question, QuestionSource, ThinkingBias


def echoes(data: QuestionSource, questions: Sequence[Question]) -> list[Question]:
    """The reverse ones of `questions`, with the entity they ask about in place of the answer.

    ``parent_child``: the parent. ``thinking_bias``: name or description, in open questions; the options of multiple
    choice never hold what is asked about. ``instructions`` ask about a sentence, not an entity: no echo.

    Source:  the shortcut questions of arXiv:2602.02470, here for every set.
    Checked: tests/evals/reversal/test_reversal_in_context.py - every entity stands in its prompt and is not the answer.
    """
    reverse = [question for question in questions if question.split == "reverse" and question.pool]
    if isinstance(data, ParentChild):
        entity = {question: question.fact.split(" | ")[1] for question in reverse}
    elif isinstance(data, ThinkingBias):
        described = {
            question.fact: question.answer.strip()
            for question in questions
            if question.pool and question.answer_type == "description"
        }
        entity = {
            question: described[question.fact] if question.answer_type == "name" else question.fact
            for question in reverse
        }
    else:
        return []
    return [
        replace(question, split="shortcut", answer=f" {entity[question]}", pool=f"{question.pool}/shortcut", aliases=())
        for question in reverse
    ]
