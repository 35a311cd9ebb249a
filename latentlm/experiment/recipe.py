"""A recipe, whole: what is trained (objective), on what (model, data, batch), how (optim), and where (run)."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from latentlm.attach.attention_mask import READ
from latentlm.components.positions import At
from latentlm.components.tap import Depth, read_depth
from latentlm.config.catalog import read_recipe
from latentlm.config.overrides import override
from latentlm.config.schema import ConfigError, dump, kind_of, parse, suggest
from latentlm.data import SETS, Data, Given, Images, Verifiable
from latentlm.experiment.batch import Batch
from latentlm.experiment.training import Grpo, Supervised, at_least
from latentlm.objective.index_sets import places_read, sets_read
from latentlm.objective.objective import Objective
from latentlm.whole_files import write_text


@dataclass(frozen=True)
class Words:
    """One token per word, fitted on the data: for invented facts."""


@dataclass(frozen=True)
class Bpe:
    """Byte-level pairs fitted on the data.

    Args:
        vocab_size: tokens.
    """

    vocab_size: int = 3000


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the network; the heads are trained in full beside them.

    Args:
        rank: of the update.
        alpha: its scale is alpha / rank.
        dropout: on the adapter's input.
        target_modules: ``all-linear`` or names; models without plain linear blocks (Mamba) need names.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self):
        at_least(1, rank=self.rank, alpha=self.alpha)
        at_least(0, dropout=self.dropout)


@dataclass(frozen=True)
class Model:
    """A pretrained model by `name`, or one from scratch by `config`.

    Args:
        name: hub name or folder; where given, `config` and `tokenizer` are not used.
        config: for a model from scratch: ``model_type`` and the arguments of its transformers config.
        tokenizer: for a model from scratch, fitted on the training documents.
        lora: train adapters instead of all weights.
        heads: ``saved`` goes on with the heads that lie in the folder `name`, trained on the same terms.
        train_up_to: a depth; the blocks above it, the final norm and an output head of its own stay as they are.
        dtype: of the weights.
        attn_implementation: transformers' name, such as sdpa or flash_attention_2.
        layers_path: dotted name of the list of blocks, where it cannot be found.
        trust_remote_code: run code that comes with the model.
    """

    name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer: Words | Bpe = Words()
    lora: Lora | None = None
    heads: Literal["fresh", "saved"] = "fresh"
    train_up_to: Depth | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: str | None = None
    layers_path: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self):
        if self.name is None and "model_type" not in self.config:
            raise ValueError("give 'name' (a hub name or folder) or 'config' with a model_type such as llama")
        if self.heads == "saved" and self.name is None:
            raise ValueError("heads: saved ones lie in a folder; give its 'name'")
        if self.train_up_to is not None:
            read_depth(self.train_up_to)
            if self.lora is not None:
                raise ValueError("train_up_to: is for all weights; adapters go where lora.target_modules says")


@dataclass(frozen=True)
class Optim:
    """AdamW with a schedule; the seed and precision belong to what changes results.

    Args:
        steps: optimizer steps; or `epochs`.
        epochs: passes over the data, where `steps` is not given.
        learning_rate, weight_decay, betas, max_grad_norm: of AdamW.
        head_learning_rate: of the heads beside a pretrained network; without it that of the network.
        schedule: of the learning rate, after the warm-up.
        warmup: steps of linear warm-up.
        seed: of weights, data order and dropout.
        precision: ``bf16`` runs the network under autocast.
    """

    steps: int | None = None
    epochs: float = 3.0
    learning_rate: float = 1e-3
    head_learning_rate: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    schedule: Literal["cosine", "linear", "constant", "polynomial", "inverse_sqrt"] = "cosine"
    warmup: int = 0
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self):
        at_least(1, steps=self.steps)
        at_least(
            0, weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm, warmup=self.warmup, seed=self.seed
        )
        for key in ("epochs", "learning_rate", "head_learning_rate"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{key}: {value}; set it above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: {list(self.betas)}; give two numbers from 0 to below 1")


@dataclass(frozen=True)
class Run:
    """What must not change results.

    Args:
        dir: run folder; by default ``runs/<recipe>``.
        resume: go on from the newest checkpoint of the run folder, or start where there is none.
        log_every: steps between lines of metrics.jsonl.
        save_every: steps between checkpoints; 0 saves only at the end.
        keep: checkpoints kept.
        report_to: tensorboard, trackio, wandb; beside metrics.jsonl.
        device: ``auto`` or ``cpu``.
        workers: data loader processes.
        activation_checkpointing: recompute blocks in the backward.
        compile: torch.compile the model.
    """

    dir: str | None = None
    resume: bool = False
    log_every: int = 10
    save_every: int = 500
    keep: int = 2
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    device: Literal["auto", "cpu"] = "auto"
    workers: int = 0
    activation_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self):
        at_least(1, log_every=self.log_every, keep=self.keep)
        at_least(0, save_every=self.save_every, workers=self.workers)


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, how, and where: see the class of each block."""

    objective: Objective
    model: Model
    data: Data
    batch: Batch = Batch()
    trainer: Supervised | Grpo = Supervised()
    optim: Optim = Optim()
    run: Run = Run()

    def __post_init__(self):
        if isinstance(self.trainer, Grpo):
            self._check_grpo(self.trainer)
        marked = isinstance(self.batch.pairs, Given)
        if isinstance(self.data, Images) and not marked:
            raise ConfigError("batch.pairs: images have no text to find spans in; leave it out")
        have = self.data.sets if marked else SETS
        for key in self.batch.of_spans:
            if "source_last" not in have:
                raise ConfigError(f"batch.{key}: data {kind_of(type(self.data))} has no spans; leave it out")
        if self.batch.gist and (how := self.model.attn_implementation) not in (None, *READ):
            raise ConfigError(f"batch.gist: model.attn_implementation {how} reads no mask; use {' or '.join(READ)}")
        for name, term in self.objective.terms.items():
            for at in sets_read(term):
                if at not in have:
                    told = suggest(at, list(have)) if have else "; it has no spans, batch.pairs.kind=phrases finds some"
                    raise ConfigError(f"objective.terms.{name}: data {kind_of(type(self.data))} gives no '{at}'{told}")

    def _check_grpo(self, trainer: Grpo) -> None:
        if not isinstance(self.data, Verifiable):
            raise ConfigError(f"trainer: grpo needs data that check an answer, {kind_of(type(self.data))} cannot")
        if (step := self.batch.size * self.batch.accumulation) % trainer.group:
            raise ConfigError(f"trainer.group: {step} completions a step (batch) are no multiple of {trainer.group}")
        if trainer.beta and self.model.name is None:
            raise ConfigError("trainer.beta: the network to stay near is loaded anew from model.name; give it")
        for key in self.batch.of_spans:
            raise ConfigError(f"batch.{key}: grpo reads what it has written itself; leave it out")
        if self.run.workers:
            raise ConfigError("run.workers: grpo has nothing to load; leave it out")
        for name, term in self.objective.terms.items():
            if sets := sets_read(term):
                raise ConfigError(
                    f"objective.terms.{name}: reads {sets[0]}, which completions do not have; leave it out"
                )

    @property
    def sets(self) -> tuple[str, ...]:
        """Named sets that the objective reads, in the data's order; nothing else is built."""
        wanted = {at for term in self.objective.terms.values() for at in sets_read(term)}
        have = self.data.sets if isinstance(self.data, Images) else SETS
        return tuple(name for name in have if name in wanted)

    @property
    def taught(self) -> tuple[At, ...]:
        """Where slow or frozen copies of the network are read."""
        return tuple(at for term in self.objective.terms.values() for at in places_read(term)[1])


def load_recipe(name: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A built-in recipe, a YAML file or a run folder, with dotlist overrides, checked whole.

    Without ``run.dir`` the run goes to ``runs/<name>``; resuming a run folder stays in it.
    """
    data = override(read_recipe(name), overrides)
    recipe = parse(Recipe, data, Path(name).name if Path(name).exists() else str(name))
    folder = recipe.run.dir
    if Path(name).is_dir() and recipe.run.resume and not any(text.startswith("run.dir=") for text in overrides):
        folder = str(name)
    elif folder is None:
        folder = str(Path("runs") / (Path(name).stem if Path(name).exists() else name))
    return replace(recipe, run=replace(recipe.run, dir=folder))


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe; it is itself a valid one."""
    write_text(path, yaml.safe_dump(dump(recipe), sort_keys=False, width=120))
