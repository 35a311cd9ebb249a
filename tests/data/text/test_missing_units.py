"""Data without the units that a method needs are refused in one line, before a model is loaded."""

import json

import pytest

from latentlm.config.schema import ConfigError
from latentlm.experiment.recipe import load_recipe
from latentlm.experiment.train import train

CHAT = {"messages": [{"role": "user", "content": "Who? Tell me."}, {"role": "assistant", "content": "Me. I do."}]}
ASKED = {"messages": [{"role": "user", "content": "Who? Tell me."}]}
TEXT = {"text": "One sentence. Another one."}


def run(tmp_path, method, rows, *more):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    sizes = "hidden_size: 32, intermediate_size: 64, num_hidden_layers: 4, num_attention_heads: 2"
    options = [
        f"model.config={{model_type: llama, {sizes}}}",
        f"data.source={path}",
        "training.max_steps=1",
        f"training.output_dir={tmp_path / 'run'}",
    ]
    return train(load_recipe(method, [*options, *more]))


@pytest.mark.parametrize(
    ("method", "rows", "more", "line"),
    [
        ("llm_jepa", [TEXT] * 4, [], r"no document has a turn; they are marked by conversations"),
        ("llm_jepa", [ASKED] * 4, [], r"loss_on: no token of any document is to be predicted"),
        ("llm_jepa", [ASKED] * 4, ["data.loss_on=all"], r"reads the turn \+1 beside each one, but no text"),
        ("hierarchy_documents", [TEXT] * 4, [], r"reads the paragraph \+1 .* has 2; use longer texts"),
        (
            "hierarchy_chat",
            [CHAT] * 4,
            ["data.packing=none"],
            r"data.packing: none has no place for units that are read",
        ),
        (
            "hierarchy",
            [TEXT] * 4,
            ["objective.terms.ladder.levels=[{grain: verse, depth: 1}]"],
            r"no units 'verse'.*data.units",
        ),
        ("hierarchy", [TEXT] * 4, ["data.units=[{kind: chunk, size: 0}]"], r"chunk: size 0; set it to 1 or more"),
        ("hierarchy", [TEXT] * 4, ["data.units=[chunk, chunk]"], r"the grain 'chunk' is given twice"),
        ("hierarchy", [TEXT] * 4, ["data.loss_on=nobody"], r"loss_on"),
    ],
)
def test_one_line_says_what_is_missing(tmp_path, method, rows, more, line):
    with pytest.raises((ConfigError, ValueError), match=line) as caught:
        run(tmp_path, method, rows, *more)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "model").exists()


def test_a_hierarchy_of_verses_is_one_rule_more(tmp_path):
    rule = "data.units=[{kind: chunk, size: 2, grain: pair}]"
    levels = "objective.terms.ladder.levels=[{grain: pair, depth: 1/2}]"
    assert (run(tmp_path, "hierarchy", [TEXT] * 8, rule, levels) / "model").exists()
