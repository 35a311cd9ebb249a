"""Recipes with a paper's own values: each against a table of what the paper says, whole, and built without weights."""

from math import cos, pi

import pytest
import torch
from tiny_vits import images
from torch import nn

from latentlm.attach.api import get_latent_model
from latentlm.config.catalog import method_names, paper_names
from latentlm.config.schema import ConfigError
from latentlm.experiment.build_model import read_config
from latentlm.experiment.build_trainer import own_optimizer, training_arguments
from latentlm.experiment.recipe import Recipe, load_recipe
from latentlm.experiment.training import build_arguments
from latentlm.trainers.lars import Lars

IMAGENET = 1_281_167
STEPS = {  # in an epoch of those that are counted in steps
    "dinov2_paper": 1250, "dense_gram_paper": 1000, "capi_paper": 1000, "salt_paper": 1000, "vjepa21_image_paper": 1000,
}  # fmt: skip
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
# V-JEPA's masks and crops of images: the first of its two masks
VJEPA = {
    "data.views.scale": (0.3, 1.0), "data.views.ratio": (0.75, 1.35), "data.views.flip": 0.5, "data.mask.num": 8,
    "data.mask.scale": (0.15, 0.15), "data.mask.ratio": (0.75, 1.5), "data.mask.context": (1.0, 1.0),
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
    # facebookresearch/simsiam: main_simsiam.py (defaults) and simsiam/builder.py
    "simsiam_paper": (512, 100, 0, 0.05 * 512 / 256, 1e-4, {
        "training.optim": "sgd", "training.optim_args": "momentum=0.9", "training.lr_scheduler_type": "cosine",
        "objective.heads.projection.dim": 2048, "objective.heads.projection.num_layers": 3,
        "objective.heads.projection.final_norm": "batch", "objective.terms.agree.predictor.hidden": 512,
        "objective.terms.agree.predictor.norm": "batch", "data.views.scale": (0.2, 1.0), "data.views.flip": 0.5,
        "data.views.jitter": 0.4 / 0.8, "data.views.saturation": None, "data.views.grayscale": 0.2,
        "data.views.blur": 0.5}),
    # facebookresearch/data2vec_vision: the command for ViT-B in beit/README.md, defaults of beit/run_cyclical.py
    "data2vec_image_paper": (16 * 128, 800, 10, 2e-3, 0.05, {
        "objective.terms.hidden_patches.target.tap.depth": ("7/12", "2/3", "3/4", "5/6", "11/12", 1),
        "objective.terms.hidden_patches.target.momentum": 0.9998,
        "objective.terms.hidden_patches.target.final_momentum": None, "objective.terms.hidden_patches.loss.beta": 2.0,
        "data.mask.ratio": round(120 / 196, 4), "data.views.scale": (0.08, 1.0), "data.views.flip": 0.5,
        "data.views.jitter": 0.4 / 0.8, "training.max_grad_norm": 3.0,
        "training.lr_scheduler_kwargs": {"min_lr": 1e-5}, "model.config.drop_path_rate": 0.25,
        "model.config.layer_scale_init_value": 1e-4, "model.config.attention_probs_dropout_prob": 0.05,
        "model.config.use_shared_relative_position_bias": True}),
    # notes on the paper (batch, steps, masks, predictor, L1, rates, weight decay); no code is public
    "salt_paper": (3072, 200, 12, 6.25e-4, 0.04, VJEPA | {
        "training.final_weight_decay": 0.4, "training.lr_scheduler_kwargs": {"min_lr": 1e-6},
        "objective.terms.blocks.predictor.num_layers": 12, "objective.terms.blocks.predictor.hidden": 384,
        "objective.terms.blocks.predictor.num_heads": 16, "objective.terms.blocks.loss.beta": 0.0}),
    # table 12 and appendix A of the paper; facebookresearch/vjepa2: app/vjepa_2_1/train.py (ramp, flip, loss)
    "vjepa21_image_paper": (2304, 135, 12, 5.25e-4, 0.04, VJEPA | {
        "training.lr_scheduler_type": "constant_with_warmup", "model.config.image_size": 256,
        "objective.terms.hidden_patches.source.depth": ("1/4", "1/2", "3/4", 1),
        "objective.terms.hidden_patches.target.momentum": 0.99925,
        "objective.terms.hidden_patches.target.final_momentum": None,
        "objective.terms.hidden_patches.predictor.num_layers": 24,
        "objective.terms.hidden_patches.predictor.hidden": 384, "objective.terms.hidden_patches.loss.beta": 0.0,
        "objective.terms.seen_patches.weight.value": 0.7, "objective.terms.seen_patches.weight.start": 15_000,
        "objective.terms.seen_patches.weight.ramp": 15_000}),
    # facebookresearch/capi: default_pretrain_config.yaml; 4 nodes of 8 GPUs as in train_distributed.py
    "capi_paper": (512 * 8 * 4, 500, 50, 1e-3, 0.1, {
        "training.adam_beta2": 0.95, "training.lr_scheduler_kwargs": {"num_cycles": 0.8 / 2},
        "objective.heads.clusters.dim": 16384, "objective.terms.hidden_patches.target.assign.temperature": 0.06,
        "objective.terms.hidden_patches.target.assign.iterations": 3,
        "objective.terms.hidden_patches.loss.temperature": 0.12,
        "objective.terms.clusters_found.loss.temperature": 0.12,
        "objective.terms.hidden_patches.target.momentum": 0.999,
        "objective.terms.hidden_patches.target.final_momentum": round(1 - 0.001 * (1 + cos(0.8 * pi)) / 2, 5),
        "objective.terms.hidden_patches.predictor.num_layers": 12,
        "objective.terms.hidden_patches.predictor.hidden": 1024, "data.mask.ratio": 0.65, "data.mask.predict": 0.05,
        "data.views.scale": (0.6, 1.0), "data.views.flip": 0.5, "model.config.drop_path_rate": 0.2,
        "model.config.num_register_tokens": 16, "model.config.patch_size": 14}),
    # OliverRensu/DeepMIM: README.md (pretraining), main_pretrain.py and models_mae.py
    "deepmim_paper": (32 * 128, 1600, 40, 1.5e-4 * 4096 / 256, 0.05, {
        f"objective.terms.block_{block}.{key}": value
        for block, depth in ((6, "1/2"), (8, "2/3"), (10, "5/6"), (12, 1))
        for key, value in (("source.depth", depth), ("predictor.num_layers", 4), ("predictor.hidden", 512),
                           ("predictor.num_heads", 16), ("weight", 1.0), ("target.normalize", "patch"))
    } | {"data.mask.ratio": 0.75, "data.views.scale": (0.2, 1.0), "data.views.flip": 0.5, "training.adam_beta2": 0.95,
         "model.positions": "sine"}),
    # facebookresearch/dinov3: configs/train/dinov3_vit7b16_gram_anchor.yaml, 256 GPUs as in README.md, from step 1e6 on
    "dense_gram_paper": (16 * 256, 200, 0, 4 * 3e-5 * (16 * 256 / 1024) ** 0.5, 0.04, {
        "training.lr_scheduler_type": "constant", "training.adam_beta2": 0.99, "training.max_grad_norm": 30.0,
        "training.layer_decay": 0.98, "objective.heads.prototypes.dim": 262144,
        "objective.heads.prototypes.hidden": 8192,
        "objective.heads.prototypes.bottleneck": 512, "objective.heads.patch_prototypes.dim": 98304,
        "objective.heads.patch_prototypes.hidden": 4096, "objective.heads.patch_prototypes.bottleneck": 384,
        "objective.terms.crops.target.momentum": 0.999, "objective.terms.crops.target.final_momentum": None,
        f"{TEMPERATURE}": 0.07, "objective.terms.crops.loss.temperature": 0.1, "objective.terms.apart.weight": 2 * 0.1,
        "objective.terms.structure.weight.value": 2.0, "objective.terms.structure.weight.ramp": 1000,
        "objective.terms.structure.target.refresh_every": 10_000, "data.views.scale": (0.32, 1.0),
        "data.views.local": 8, "data.views.local_size": 112, "data.views.local_scale": (0.05, 0.32),
        "data.views.flip": 0.0, "data.mask.ratio": (0.1, 0.5), "data.mask.probability": 0.5,
        "model.config.image_size": 256, "model.config.hidden_size": 4096, "model.config.num_hidden_layers": 40,
        "model.config.num_attention_heads": 32, "model.config.num_register_tokens": 4,
        "model.config.drop_path_rate": 0.4, "model.config.layerscale_value": 1e-5}),
    # table 3 and sec. 4.1-4.2 of the paper; HaiyuWu/visreg: configs/default.yaml, train.py and visreg/data/multicrop.py
    "visreg_paper": (512, 400, 5, 9e-4, 0.05, {
        "objective.terms.agree.weight": 0.1, "objective.terms.gaussian.weight": 0.9,
        "objective.terms.agree.loss.num_global": 4, "objective.terms.gaussian.loss.num_slices": 4096,
        "objective.terms.gaussian.loss.eps": 1e-6,
        "objective.heads.projection.dim": 256, "objective.heads.projection.hidden": 2048,
        "objective.heads.projection.activation": "gelu", "data.views.num": 4, "data.views.scale": (0.3, 1.0),
        "data.views.local": 6, "data.views.local_size": 96, "data.views.local_scale": (0.05, 0.3),
        "data.views.flip": 0.5, "data.views.jitter": 0.4 / 0.8, "data.views.saturation": 0.2 / 0.8,
        "data.views.grayscale": 0.2, "data.views.blur": 0.5, "data.views.solarize": 0.2,
        "training.max_grad_norm": 1.0, "training.lr_scheduler_kwargs": {"min_lr": 9e-7},
        "model.config.drop_path_rate": 0.1}),
    # facebookresearch/VICRegL: README.md (ResNet-50, 300 epochs), main_vicregl.py (defaults) and transforms.py
    "vicregl_paper": (2048, 300, 10, 0.2 * 2048 / 256, 1e-6, TWINS | WIDE | {
        "training.optim": "lars", "training.lr_scheduler_kwargs": {"min_lr": 1e-3 * 1.6},
        "objective.heads.local.dim": 512, "objective.heads.local.hidden": 512,
        "objective.terms.agree.weight": 0.75 * 25, "objective.terms.variance.weight": 0.75 * 25,
        "objective.terms.covariance.weight": 0.75, "objective.terms.agree_places.weight": 0.25 * 25,
        "objective.terms.agree_nearest.weight": 0.25 * 25, "objective.terms.agree_nearest.loss.num": 20,
        "objective.terms.variance_patches.weight": 2 * 0.25 * 25, "objective.terms.covariance_patches.weight": 2 * 0.25,
        "data.views.flip": 0.5, "data.views.jitter": 0.4 / 0.8, "data.views.saturation": 0.2 / 0.8,
        "data.views.grayscale": 0.2}),
    # SihanXU/nepa: scripts/pretrain/nepa_b.sh, configs/pretrain/nepa-base-patch14-224 and run_nepa.py
    "nepa_paper": (4096, 1600, 40, 3e-4 * 4096 / 256, 0.05, {
        "training.adam_beta2": 0.95, "training.max_grad_norm": 1.0, "data.views.scale": (0.08, 1.0),
        "data.views.flip": 0.5, "data.mean": (0.5, 0.5, 0.5), "data.std": (0.5, 0.5, 0.5),
        "model.config.key_bias": True, "model.config.layer_norm_eps": 1e-12,
        "model.config.patch_size": 14, "model.config.hidden_size": 768, "model.config.layerscale_value": 1e-5,
        "model.config.num_register_tokens": 0, "model.config.pos_embed_rescale": 2.0}),
    # the post: 200 epochs, warm-up of 2.5 %, weight decay, alpha .5, beta .8, depths, loss; the rest is I-JEPA's
    "cijepa_paper": (2048, 200, 5, 1e-3, 0.05, {
        "objective.terms.ladder.targets": ("1/6", "1/4", "1/3", "5/12", "1/2", "7/12", "2/3", "3/4", "5/6", "11/12", 1),
        "objective.terms.ladder.weights.top": 0.5, "objective.terms.ladder.weights.top_to_top": 0.8,
        "objective.terms.ladder.target.normalize": "none", "objective.terms.ladder.target.momentum": 0.996,
        "objective.terms.ladder.target.final_momentum": 1.0, "objective.terms.ladder.predictor.hidden": 384,
        "data.views.scale": (0.3, 1.0), "data.views.flip": 0.0, "data.mask.num": 4, "data.mask.scale": (0.15, 0.2),
        "data.mask.ratio": (0.75, 1.5), "data.mask.context": (0.85, 1.0), "data.mask.min_seen": 10}),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    told = ["data.source={kind: scenes, num_train: 8}", "training.use_cpu=true"]
    if name == "salt_paper":  # the network at the start instead of a teacher that has been trained
        told.append("objective.terms.blocks.target.checkpoint=null")
    return load_recipe(name, told)


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
        steps = STEPS[name]
        assert (training["max_steps"], training["warmup_steps"]) == (epochs * steps, warm * steps)
    else:
        assert training["num_train_epochs"] == epochs
        assert name not in STEPS
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
def test_network_and_arguments_are_built(name, tmp_path, monkeypatch):
    from transformers import AutoModel

    for kind, draw in ((nn.Linear, "reset_parameters"), (nn.MultiheadAttention, "_reset_parameters")):
        monkeypatch.setattr(kind, draw, lambda _: None)  # heads are large, and no value of theirs is read
    of = recipe(name)
    config = read_config(of)
    rate = training_arguments(of, tmp_path).lr_scheduler_type
    assert rate in ("cosine", "cosine_with_min_lr", "constant", "constant_with_warmup")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    objective = of.objective
    get_latent_model(model, objective)
    views = of.data.views
    size = config.image_size
    collator = of.data.collator(size, config.patch_size, 3, of.sets, of.taught)
    picture = images(rows=1)["pixel_values"][0, :1].numpy().astype("uint8")
    batch = collator([{"image": picture, "key": key} for key in (1, 2)])
    assert batch["pixel_values"].shape[-2:] == (size, size)
    if views.local:
        small = views.local_size
        assert batch["latent"]["local_pixels"].shape == (2 * views.local, 3, small, small)


def test_sgd_and_lars_have_the_momentum_that_they_are_told():
    assert own_optimizer(recipe("simsiam_paper")) == (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
    assert own_optimizer(recipe("vicregl_paper")) == (Lars, {"lr": 1.6, "momentum": 0.9, "trust": 0.001})
    assert own_optimizer(recipe("mae_paper")) is None
    for told, error in (("trust=0.001", "sgd has no trust; it has momentum"), ("momentum", "write it as momentum=0.9")):
        with pytest.raises(ConfigError, match=error):
            own_optimizer(load_recipe("simsiam_paper", ["data.source={kind: scenes}", f"training.optim_args={told}"]))


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
