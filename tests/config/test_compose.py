"""A recipe from experiment, method, model and overrides; old names and keys are told what they are now."""

from pathlib import Path

import pytest

from latentlm.attach.api import as_objective
from latentlm.config.catalog import experiment_names, method_names, model_names, read_recipe, recipe_names
from latentlm.config.compose import compose, merge
from latentlm.config.migration import COMMANDS, KEYS, RECIPES, check_data
from latentlm.config.schema import ConfigError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def told(call, *words) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_are_unique_and_a_method_holds_an_objective_and_what_it_needs_of_the_data():
    assert not method_names().keys() & experiment_names().keys()
    assert recipe_names() == experiment_names() | method_names()
    for name in method_names():
        assert read_recipe(name).keys() <= {"objective", "data", "training", "try_on"}, name
        assert as_objective(name) == as_objective(read_recipe(name)["objective"])
        assert "source" not in read_recipe(name).get("data", {})


def test_every_model_is_written_once():
    written = [path.read_text() for path in Path(str(next(iter(model_names().values())))).parents[1].rglob("*.yaml")]
    for name in model_names():
        line = next(line for line in model_names()[name].read_text().splitlines() if line.startswith("config:"))
        assert sum(line in text for text in written) == 1


def test_a_method_alone_is_tried_on_its_toy_experiment():
    facts, scenes = read_recipe("facts"), read_recipe("scenes")
    nitp = compose("nitp")
    assert nitp["objective"] == read_recipe("nitp")["objective"]
    assert nitp["model"] == read_recipe(model_names()[facts["model"]])
    assert (nitp["training"], nitp["data"]) == (facts["training"], {"kind": "text", **facts["data"]})
    mae = compose("mae")
    assert mae["data"] == {**scenes["data"], "mask": read_recipe("mae")["data"]["mask"]}
    assert compose("scenes", ["objective=mae"]) == mae
    assert compose("facts", ["objective=nitp"]) == nitp
    assert (
        compose("nitp", ["data.source.num_both=3"])["data"]["source"]["num_a_to_b"]
        == facts["data"]["source"]["num_a_to_b"]
    )


def test_ones_own_model_or_data_take_plain_training():
    own = compose("llm_jepa", ["model.name=some/model", "data.source=chats.jsonl", "training.max_steps=3"])
    assert own["model"] == {"name": "some/model"}
    assert own["training"] == {**read_recipe("finetune")["training"], "max_steps": 3}
    assert own["data"] == {"kind": "text", "source": "chats.jsonl"}
    assert compose("llm_jepa")["data"]["source"] == {"kind": "people", "form": "chat"}  # what it is tried on
    assert compose("mae", ["model.name=a/vit", "data.source=photos"])["data"]["kind"] == "images"
    scratch = compose("mae", ["data.source=photos"])
    assert scratch["model"] == read_recipe(model_names()["tiny_vit"])
    assert scratch["training"] == read_recipe("scenes")["training"]
    assert "model.name=" in told(compose, "nitp", ["data.source=x.txt"])
    assert "data.source=" in told(compose, "nitp", ["model.name=x/y"])


def test_a_name_takes_the_place_of_the_network_from_scratch():
    assert compose("facts", ["model.name=x/y", "model.lora.r=4"])["model"] == {"name": "x/y", "lora": {"r": 4}}
    assert compose("facts", ["model=tiny_vit"])["model"] == read_recipe(model_names()["tiny_vit"])
    assert "did you mean 'tiny_llama'" in told(compose, "facts", ["model=tiny_lama"])
    assert "did you mean 'nitp'" in told(compose, "facts", ["objective=nipt"])


def test_what_a_file_says_itself_wins_over_the_method_that_it_names():
    Path("own.yaml").write_text(
        "objective: mae\nmodel: tiny_vit\ndata: {kind: images, source: scenes, mask: {kind: random, ratio: 0.5}}\n"
    )
    assert compose("own.yaml")["data"]["mask"]["ratio"] == 0.5
    Path("method.yaml").write_text("objective: {lm_weight: 2}\n")
    assert compose("method.yaml")["objective"] == {"lm_weight": 2}
    assert compose("method.yaml")["model"] == compose("facts")["model"]


def test_blocks_of_another_kind_are_replaced_whole():
    assert merge({"a": {"kind": "x", "b": 1}}, {"a": {"kind": "y"}}) == {"a": {"kind": "y"}}
    assert merge({"a": {"kind": "x", "b": 1}}, {"a": {"kind": "x", "c": 2}}) == {"a": {"kind": "x", "b": 1, "c": 2}}
    assert merge({"objective": {"a": 1}}, {"objective": {"b": 2}}) == {"objective": {"b": 2}}


@pytest.mark.parametrize(
    ("override", "now"),
    [
        ("optim.learning_rate=1", "training.learning_rate"),
        ("optim={steps: 4}", "training.max_steps"),
        ("optim.betas=[1, 2]", "adam_beta1"),
        ("run.dir=x", "training.output_dir"),
        ("run.report_to=wandb", "training.report_to"),
        ("run.resume=true", "training.resume_from_checkpoint"),
        ("batch.size=3", "training.per_device_train_batch_size"),
        ("batch.pairs.strangers=1", "distractor"),
        ("batch.pairs.kind=phrases", "data.span_pairs"),
        ("batch.max_length=3", "data.max_length"),
        ("batch.layout=rows", "packing: none"),
        ("data.kind=facts", "data.source.kind: facts"),
        ("data.num_both=3", "data.source.num_both"),
        ("trainer.group=3", "training.num_generations"),
        ("trainer={kind: grpo}", "trainer: supervised or grpo"),
        ("model.train_up_to=1", "model.freeze_above"),
        ("model.lora.rank=1", "model.lora.r"),
        ("objective.data=1", "objective.lm_weight"),
        ("objective.terms.x.through=readout", "objective.terms.x.decode_with"),
        ("objective.terms.x.kind=spread", "regularize"),
        ("objective.terms.x.source.at=span_end", "source_last"),
        ("objective.terms.x.predictor={kind: slots}", "per_token_linear"),
    ],
)
def test_an_old_key_is_told_what_it_is_now(override, now):
    line = told(compose, "facts", [override])
    assert " is now " in line
    assert now in line.partition(" is now ")[2]
    assert line.startswith(override.partition("=")[0])


def test_old_recipes_run_folders_saved_blocks_and_names():
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text(
        "objective: {data: 1}\nmodel: {name: x}\ndata: {kind: facts}\noptim: {steps: 3}\n"
    )
    assert "recipe 'run/recipe.yaml': objective.data is now objective.lm_weight" in told(compose, "run")
    assert "objective.terms.a.average is now" in told(
        as_objective, {"terms": {"a": {"kind": "predict", "average": "pairs"}}}
    )
    for old, new in (*RECIPES.items(), ("text/nitp", "nitp"), ("vision/mae", "mae")):
        assert told(compose, old).endswith(f"'{old}' is now '{new}'")
        assert new in recipe_names()
    assert "did you mean" in told(compose, "text/nothing_of_the_kind") or "known" in told(
        compose, "text/nothing_of_the_kind"
    )
    assert COMMANDS == {"texts": "export-data"}


def test_no_recipe_of_ours_has_an_old_key_and_the_table_never_sends_in_a_circle():
    for name in recipe_names():
        check_data(read_recipe(name), name)
    for old, new in KEYS.items():
        first = new.split()[0].rstrip(":,")
        assert first not in KEYS, (old, new)
