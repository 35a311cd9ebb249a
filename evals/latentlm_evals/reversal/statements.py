"""Positive control: the question once more, with the training sentence that states its fact before it."""

import re
from collections.abc import Sequence
from dataclasses import replace

from latentlm.data import Instructions, NameDescription, ParentChild, Question, QuestionSource
from latentlm_evals.reversal.groups import STATED


def in_context(data: QuestionSource, questions: Sequence[Question]) -> tuple[list[Question], list[str]]:
    """The `same` and `reverse` questions, each after the statement of its fact, and warnings where there is none.

    A statement is a document (of ``instructions``: a line of one) that holds every part of ``Question.fact`` (of
    ``name_description``: the name, as descriptions are reworded); as these facts are told one way only, it stands in
    the trained direction. Of several it is one that holds the answer as it is asked for, and then the one that shares
    most words with question and answer. It is joined to the prompt by a line break.

    Source:  the control of Berglund et al. 2023, arXiv:2309.12288, who report 96.7-100 % in context.
    Checked: tests/evals/reversal/test_reversal_in_context.py - every fact of every set is found, in the trained
             direction only.
    """
    asked = [question for question in questions if question.split in STATED]
    texts = [] if isinstance(data, ParentChild) else _texts(data)  # nothing is trained there
    of_fact: dict[tuple[str, ...], list[str]] = {}
    told, silent = [], 0
    for question in asked:
        parts = _parts(data, question)
        if parts not in of_fact:
            of_fact[parts] = [text for text, lower in texts if all(part in lower for part in parts)]
        if not of_fact[parts]:
            silent += 1
            continue
        told.append(replace(question, prompt=f"{_closest(of_fact[parts], question)}\n{question.prompt}"))
    if not silent:
        return told, []
    name = type(data).__name__
    return told, [f"no_statement: {silent} of {len(asked)} questions of {name} have none to put before them in context"]


def _texts(data: QuestionSource) -> list[tuple[str, str]]:
    texts = [document.text for document in data.documents()]
    if isinstance(data, Instructions):  # a document gives several
        texts = [line for text in texts for line in text.split("\n")]
    return [(text, text.lower()) for text in texts]


def _parts(data: QuestionSource, question: Question) -> tuple[str, ...]:
    """What a statement of the question's fact holds, in lower case."""
    if isinstance(data, Instructions):
        asked = question.prompt.rpartition("Q: ")[2].removesuffix(" A:")
        return f'"q: {asked.lower()}"', f'"a: {question.answer.strip().lower()}"'
    parts = tuple(question.fact.lower().split(" | "))
    return parts[:1] if isinstance(data, NameDescription) else parts


def _closest(texts: list[str], question: Question) -> str:
    answer, words = question.answer.strip().lower(), _words(question.prompt + question.answer)
    return max(texts, key=lambda text: (answer in text.lower(), len(words & _words(text))))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
