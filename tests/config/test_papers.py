"""Recipes with a paper's own values: each against a table of what the paper says, whole, and built without weights."""

import pytest
import torch
from tiny_vits import images

from latentlm.attach.api import get_latent_model
from latentlm.config.catalog import method_names, paper_names
from latentlm.experiment.build_model import read_config
from latentlm.experiment.build_trainer import training_arguments
from latentlm.experiment.recipe import Recipe, load_recipe
from latentlm.experiment.training import build_arguments

IMAGENET = 1_281_167
TEMPERATURE = "objective.terms.crops.target.assign.temperature"
DINO = {  # what DINO and those that go on from it share
    "objective.heads.prototypes.hidden": 2048,
    "objective.heads.prototypes.bottleneck": 256,
    "objective.terms.crops.loss.temperature": 0.1,
    "objective.terms.crops.target.final_momentum": 1.0,
    f"{TEMPERATURE}.start": 0.04,
    f"{TEMPERATURE}.end": 0.07,
    "data.views.num": 2,
    "data.views.local_size": 96,
    "data.views.flip": 0.5,
    "data.views.blur": (1.0, 0.1, 0.5),
    "data.views.solarize": (0.0, 0.2, 0.0),
    "data.views.grayscale": 0.2,
    "training.weight_decay": 0.04,
    "training.final_weight_decay": 0.4,
}
TWINS = {"data.views.scale": (0.08, 1.0), "data.views.blur": (1.0, 0.1), "data.views.solarize": (0.0, 0.2)}
WIDE = {f"objective.heads.projection.{key}": 8192 for key in ("dim", "hidden")} | {
    "objective.heads.projection.num_layers": 3, "objective.heads.projection.activation": "relu",
}  # fmt: skip
# batch, epochs, warm-up epochs, learning rate (after the paper's scaling), weight decay, the rest by key
PAPERS = {
    "mae_paper": (4096, 800, 40, 1.5e-4 * 4096 / 256, 0.05, {
        "data.mask.ratio": 0.75, "data.views.scale": (0.2, 1.0), "training.adam_beta2": 0.95, "model.positions": "sine",
        "objective.terms.pixels.predictor.hidden": 512, "objective.terms.pixels.predictor.num_layers": 8,
        "objective.terms.pixels.predictor.num_heads": 16, "objective.terms.pixels.target.eps": 1e-6}),
    "ijepa_paper": (2048, 300, 40, 1e-3, 0.04, {
        "training.final_weight_decay": 0.4, "training.lr_scheduler_kwargs": {"min_lr": 1e-6},
        "data.views.scale": (0.3, 1.0), "data.views.flip": 0.0, "data.mask.num": 4, "data.mask.scale": (0.15, 0.2),
        "data.mask.ratio": (0.75, 1.5), "data.mask.context": (0.85, 1.0), "data.mask.min_seen": 10,
        "objective.terms.blocks.target.momentum": 0.996, "objective.terms.blocks.target.momentum_schedule": "linear",
        "objective.terms.blocks.predictor.num_layers": 12, "objective.terms.blocks.predictor.hidden": 384}),
    "dino_paper": (1024, 300, 10, 5e-4 * 1024 / 256, 0.04, DINO | {
        "objective.heads.prototypes.dim": 65536, "objective.terms.crops.target.momentum": 0.996,
        "data.views.scale": (0.4, 1.0), "data.views.local": 8, "data.views.local_scale": (0.05, 0.4),
        "training.max_weight_grad_norm": 3.0, "training.lr_scheduler_kwargs": {"min_lr": 1e-6},
        "model.config.drop_path_rate": 0.1}),
    "ibot_paper": (1024, 800, 10, 5e-4 * 1024 / 256, 0.04, DINO | {
        "objective.heads.prototypes.dim": 8192, "data.views.local": 10, "data.views.local_scale": (0.05, 0.25),
        "data.mask.ratio": (0.1, 0.5), "data.mask.probability": 0.5, "objective.terms.crops.target.momentum": 0.996}),
    "dinov2_paper": (2048, 100, 10, 0.004 * (2048 / 1024) ** 0.5, 0.04, DINO | {
        "objective.heads.prototypes.dim": 65536, "objective.terms.crops.target.momentum": 0.992,
        "data.views.scale": (0.32, 1.0), "data.views.local_scale": (0.05, 0.32), "training.layer_decay": 0.9,
        "training.max_grad_norm": 3.0, "model.config.drop_path_rate": 0.3, "model.config.layerscale_value": 1e-5,
        "data.mask.ratio": (0.1, 0.5), "data.mask.probability": 0.5, "objective.terms.apart.weight": 2 * 0.1}),
    "msn_paper": (1024, 800, 15, 1e-3, 0.04, {
        "objective.heads.prototypes.dim": 1024, "objective.heads.prototypes.bottleneck": 256,
        "objective.terms.crops.loss.temperature": 0.1, f"{TEMPERATURE}": 0.1 * 0.25, "data.mask.ratio": 0.15,
        "data.views.local": 10, "data.views.local_size": 96, "training.final_weight_decay": 0.4,
        "objective.terms.all_used.weight": 1.0, "training.max_grad_norm": 3.0}),
    "vicreg_paper": (2048, 1000, 10, 0.2 * 2048 / 256, 1e-6, TWINS | WIDE | {
        "training.optim": "lars", "objective.terms.agree.weight": 25.0, "objective.terms.variance.weight": 25.0,
        "objective.terms.covariance.weight": 2.0}),
    "barlow_paper": (2048, 1000, 10, 0.2 * 2048 / 256, 1.5e-6, TWINS | WIDE | {
        "training.optim": "lars", "objective.terms.twins.loss.redundancy": 0.0051,
        "objective.terms.twins.weight": 0.024}),
    "byol_paper": (4096, 1000, 10, 0.2 * 4096 / 256, 1.5e-6, TWINS | {
        "training.optim": "lars", "objective.heads.projection.hidden": 4096, "objective.heads.projection.dim": 256,
        "objective.terms.agree.predictor.hidden": 4096, "objective.terms.agree.target.momentum": 0.996}),
    "simclr_paper": (4096, 1000, 10, 0.3 * 4096 / 256, 1e-6, {
        "training.optim": "lars", "objective.terms.contrast.loss.temperature": 0.1, "data.views.jitter": 1.0,
        "objective.heads.projection.dim": 128, "data.views.scale": (0.08, 1.0), "data.views.blur": 0.5}),
    "swav_paper": (4096, 800, 10, 4.8, 1e-6, {
        "objective.heads.prototypes.dim": 3000, "objective.heads.prototypes.bottleneck": 128,
        "objective.heads.prototypes.frozen_steps": 313, f"{TEMPERATURE}": 0.05, "data.views.scale": (0.14, 1.0),
        "objective.terms.crops.loss.temperature": 0.1, "data.views.local": 6, "data.views.local_size": 96,
        "data.views.local_scale": (0.05, 0.14), "training.lr_scheduler_kwargs": {"min_lr": 4.8e-3}}),
    "lejepa_paper": (512, 100, 10, 5e-4, 0.05, {
        "objective.terms.agree.weight": 0.95, "objective.terms.gaussian.weight": 0.05, "data.views.local": 6,
        "objective.terms.gaussian.loss.num_slices": 1024, "data.views.local_size": 98, "data.views.scale": (0.3, 1.0),
        "objective.heads.projection.hidden": 2048, "model.config.drop_path_rate": 0.1}),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    return load_recipe(name, ["data.source={kind: scenes, num_train: 8}", "training.use_cpu=true"])


def value(of: Recipe, key: str):
    found = of
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


def test_every_paper_has_a_table_and_a_small_form():
    assert paper_names().keys() == PAPERS.keys()
    assert {name.removesuffix("_paper") for name in PAPERS} <= method_names().keys()


@pytest.mark.parametrize("name", PAPERS)
def test_the_recipe_has_the_papers_values_and_says_what_differs(name):
    batch, epochs, warm, rate, decay, keys = PAPERS[name]
    of = recipe(name)
    training, steps = of.training, IMAGENET // batch
    assert training["per_device_train_batch_size"] == batch
    assert training["learning_rate"] == pytest.approx(rate, rel=1e-3)
    assert training["weight_decay"] == decay
    if training.get("max_steps", -1) > 0:  # counted in steps
        steps = 1250
        assert (training["max_steps"], training["warmup_steps"]) == (epochs * steps, warm * steps)
    else:
        assert training["num_train_epochs"] == epochs
        assert training["warmup_steps"] * epochs == pytest.approx(warm, rel=2e-3)
    for key, want in keys.items():
        assert value(of, key) == want, key
    for key, num_epochs in ((f"{TEMPERATURE}.steps", 30), ("objective.heads.prototypes.frozen_steps", 1)):
        if f"{TEMPERATURE}.start" in keys:
            assert value(of, key) == pytest.approx(num_epochs * steps, rel=2e-3)
    lines = paper_names()[name].read_text(encoding="utf-8").split("objective:")[0]
    assert "\n# Differs: " in lines
    assert f"latentlm train {name} data.source=" in lines


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("mae_paper", "dino_paper") else pytest.mark.slow) for name in PAPERS],
)
def test_network_and_arguments_are_built(name, tmp_path):
    from transformers import AutoModel

    of = recipe(name)
    config = read_config(of)
    assert training_arguments(of, tmp_path).lr_scheduler_type in ("cosine", "cosine_with_min_lr")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    objective = of.objective
    get_latent_model(model, objective)
    views = of.data.views
    collator = of.data.collator(224, config.patch_size, 3, of.sets, of.taught)
    picture = images(rows=1)["pixel_values"][0, :1].numpy().astype("uint8")
    batch = collator([{"image": picture, "key": key} for key in (1, 2)])
    assert batch["pixel_values"].shape[-2:] == (224, 224)
    if views.local:
        small = views.local_size
        assert batch["latent"]["local_pixels"].shape == (2 * views.local, 3, small, small)


def test_the_rate_of_a_schedule_with_a_floor_ends_at_it():
    from transformers import get_scheduler

    arguments = build_arguments(
        {"output_dir": "x", "lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-3},
         "learning_rate": 1.0, "report_to": "none", "use_cpu": True}, "supervised"
    )  # fmt: skip
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type, optimizer, 0, 10, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs
    )
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
