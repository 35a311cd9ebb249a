"""Arithmetic: answers are right, splits are disjoint, everything is the same in every process."""

import subprocess
import sys

import pytest

from latentlm.config.schema import ConfigError, parse
from latentlm.data import Arithmetic, Problem, TextSource


def solve(problem):
    left, sign, right = "".join(problem.prompt.removesuffix("=").split()).partition(
        next(sign for sign in "+-*" if sign in problem.prompt)
    )
    return {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]


@pytest.mark.parametrize("apart", [True, False])
def test_answers_are_right_and_never_negative(apart):
    data = Arithmetic(num_train=300, num_test=100, highest=30, operations=("+", "-", "*"), apart=apart)
    for problem in data.problems("train") + data.problems("test"):
        assert solve(problem) == int("".join(problem.answer.split())) >= 0
        assert (problem.answer == " ".join("".join(problem.answer.split()))) or not apart
        assert problem.solved(f" {problem.answer}")
        assert not problem.solved(f" {problem.answer} 0")


def test_no_test_problem_is_trained_on_not_even_with_its_numbers_swapped():
    data = Arithmetic(num_train=1000, num_test=275, highest=49)  # every pair there is
    train, test = (
        {frozenset(problem.prompt.removesuffix(" =").split(" + ")) for problem in data.problems(split)}
        for split in ("train", "test")
    )
    assert (len(train), len(test)) == (1000, 275)
    assert not train & test


def test_documents_hold_the_solved_problem_and_its_two_sides():
    data = Arithmetic(num_train=5, num_test=5)
    for problem, document in zip(data.problems("train"), data.documents(), strict=True):
        assert document.text == f"{problem.prompt} {problem.answer}"
        left, right = (document.text[slice(*span)] for span in document.spans)
        assert (f"{left} =", right) == (problem.prompt, problem.answer)


@pytest.mark.parametrize(
    ("written", "right"),
    [(" 8 5", True), ("85", True), (" 8 5\n1 + 1 = 2", True), ("", False), (" ", False), (" 8", False),
     ("x 8 5", False), (" 8 5 .", False), (" 0 8 5", False)],
)  # fmt: skip
def test_only_the_answer_alone_is_right(written, right):
    assert Problem("4 7 + 3 8 =", "8 5").solved(written) is right


@pytest.mark.slow
def test_another_process_makes_the_same_problems_and_another_seed_others():
    code = "from latentlm.data import Arithmetic; print([p.prompt for p in Arithmetic(9, 3).problems('train')])"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == str([problem.prompt for problem in Arithmetic(9, 3).problems("train")])
    assert there != str([problem.prompt for problem in Arithmetic(9, 3, seed=1).problems("train")])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"highest": 3}, "highest: 3 gives 10 problems < num_train + num_test; raise it"),
        ({"operations": []}, "list each of"),
        ({"num_test": 0}, "num_test: 0; set it to 1 or more"),
        ({"operations": ["/"]}, "unknown value '/'"),
    ],
)
def test_mistakes_are_one_line(more, told):
    with pytest.raises(ConfigError, match=told.replace("+", r"\+")) as caught:
        parse(TextSource, {"kind": "arithmetic", **more}, "data")
    assert "\n" not in str(caught.value)
