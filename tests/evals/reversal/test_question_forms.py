"""scripts/question_forms.py: forms of questions, rates and differences with a known answer."""

import json
import runpy

from latentlm_evals.reversal.question_forms import FORMS, TASK, difference, form, rate, read
from paths import ROOT

DESCRIPTION = "the composer of the first opera under water."
PROMPTS = (
    "Known as the composer of the first opera under water,",
    "Celebrated for composing beneath the sea,",
    "The embodiment of being the composer of the first opera under water, that's",
)


def sample(prompt, fact, exact):
    return {"task": TASK, "fact": fact, "prompt": prompt, "exact": exact}


def samples(people, right):
    """One question of each form about every person; `right` says which forms are answered."""
    return [
        sample(f"{n}. {prompt}", f"Person {n} | {DESCRIPTION}", k in right)
        for n in range(people)
        for k, prompt in enumerate(PROMPTS)
    ]


def test_forms_and_rates_are_told_by_the_fact():
    rows = samples(4, right={0})
    assert [form(row) for row in rows[:3]] == list(FORMS)
    assert rate(rows) == "4 of 12: 33.3 [1, 90]"  # all people alike: 4 KL(1/3 || p) = log 40
    assert rate([row for row in rows if form(row) == FORMS[0]]) == "4 of 4: 100.0 [40, 100]"


def test_a_difference_is_taken_question_by_question():
    first = {row["prompt"]: row for row in samples(4, right={0})}
    assert difference(samples(4, right={0, 1}), first) == "+33.3"  # the same for everybody: nothing bounds it
    some = samples(2, right={0, 1}) + samples(4, right={0})[6:]
    shown = difference(some, first)
    assert shown.startswith("+16.7 [")
    assert "-" not in shown


def test_the_command_prints_a_table_and_refuses_what_it_cannot_compare(tmp_path, monkeypatch, capsys):
    files = []
    for name, rows in {"a": samples(3, {0}), "b": samples(3, {0, 1}), "c": samples(2, {0})}.items():
        files.append(tmp_path / name)
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    a, b, c = files
    assert len(read(a, TASK)) == 9

    def run(*words):
        """Exit code, what is printed, and what is said of a mistake."""
        monkeypatch.setattr("sys.argv", ["question_forms", *map(str, words)])
        code = None
        try:
            runpy.run_path(str(ROOT / "evals/latentlm_evals/reversal/question_forms.py"), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    code, told, _ = run(a, b)
    assert code is None
    assert "6 of 9: 66.7" in told
    assert "hold other questions" in run(a, c)[2]
    assert "no questions of reversal/x" in run(a, "--task", "reversal/x")[2]
    for wrong in (tmp_path, tmp_path / "none"):
        code, _, line = run(wrong)
        assert (code, len(line.splitlines())) == (2, 1)
