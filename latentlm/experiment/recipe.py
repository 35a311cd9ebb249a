"""A recipe, whole: what is trained (objective), on what (model, data), how and where (training, trainer)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from latentlm.components.attention_mask import READ
from latentlm.components.positions import At
from latentlm.components.tap import Depth, read_depth
from latentlm.components.units import UnitsAlone
from latentlm.config.compose import compose
from latentlm.config.schema import ConfigError, dump, kind_of, parse, suggest
from latentlm.data import SETS, Data, Images, Mixture, Part, Text, TextSource, VerifiableSource
from latentlm.experiment.training import check_training
from latentlm.objective.index_sets import places_read, sets_read, units_read
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
    """Low-rank adapters on the network, by peft's names; the heads are trained in full beside them.

    Args:
        r: rank of the update.
        lora_alpha: its scale is lora_alpha / r.
        lora_dropout: on the adapter's input.
        target_modules: ``all-linear`` or names; models without plain linear blocks (Mamba) need names.
    """

    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self):
        for key in ("r", "lora_alpha"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}: {getattr(self, key)}; set it to 1 or more")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout: {self.lora_dropout}; set it to 0 or more and below 1")


@dataclass(frozen=True)
class Model:
    """A pretrained model by `name`, or one from scratch by `config`.

    Args:
        name: hub name or folder; `tokenizer` is then not used.
        config: for a model from scratch: ``model_type`` and the arguments of its transformers config. Beside `name`:
            keys of the checkpoint's config that are to be other than there, such as drop_path_rate, or image_size, to
            which learned positions are resampled.
        positions: ``sine`` fixes those of a ViT from scratch (MAE, I-JEPA); by default they are the network's own.
        tokenizer: for a model from scratch, fitted on the training documents.
        lora: train adapters instead of all weights.
        load_latent_heads: continue with the heads that are saved in the folder `name`, trained on the same terms.
        freeze_above: a depth; the blocks above it, the final norm and a separate output head stay as they are.
        dtype: of the weights.
        attn_implementation: transformers' name, such as sdpa or flash_attention_2.
        layers_path: dotted name of the list of blocks, where it cannot be found.
        trust_remote_code: run code that comes with the model.
    """

    name: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    positions: Literal["own", "sine"] = "own"
    tokenizer: Words | Bpe = Words()
    lora: Lora | None = None
    load_latent_heads: bool = False
    freeze_above: Depth | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: str | None = None
    layers_path: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self):
        if self.name is None and "model_type" not in self.config:
            raise ValueError(
                "give 'name' (a hub name or folder), 'config' with a model_type such as llama, or model=tiny_llama"
            )
        if self.positions == "sine" and self.name is not None:
            raise ValueError("positions: sine is for a network from scratch; leave it out beside name")
        if self.load_latent_heads and self.name is None:
            raise ValueError("load_latent_heads: saved heads are in a folder; give its 'name'")
        if self.freeze_above is not None:
            read_depth(self.freeze_above)
            if self.lora is not None:
                raise ValueError("freeze_above: is for all weights; adapters go where lora.target_modules says")


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and how: see the class of each block.

    Args:
        objective: the terms, or in a file the name of a method.
        model: the network, or in a file the name of one in recipes/models.
        data: texts, images, or a mixture of texts.
        training: arguments of TrainingArguments (of GRPOConfig for ``grpo``) and ``head_learning_rate``.
        trainer: ``supervised`` reads the data as they are; ``grpo`` samples completions with the network and rewards
            those that the data's own check finds right (arXiv 2402.03300, with the mean of arXiv 2503.14476).
    """

    objective: Objective
    model: Model
    data: Data
    training: dict[str, Any] = field(default_factory=dict)
    trainer: Literal["supervised", "grpo"] = "supervised"

    def __post_init__(self):
        if isinstance(self.data, Mixture):
            self._check_parts(self.data)
            return
        have = self._check_spans()
        self._check_units()
        for name, term in self.objective.terms.items():
            for at in sets_read(term):
                if at not in have:
                    told = (
                        suggest(at, list(have))
                        if have
                        else "; it has no spans, data.span_pairs.kind=phrases finds some"
                    )
                    raise ConfigError(f"objective.terms.{name}: {self._source_kind} data give no '{at}'{told}")

    def _check_spans(self) -> tuple[str, ...]:
        """Named sets that the data give; refuses settings of spans where there are none."""
        data = self.data
        if not isinstance(data, Text):
            return data.sets
        for key in data.of_spans:
            if not data.sets:
                raise ConfigError(f"data.augment: {key} needs spans, {self._source_kind} has none; leave it out")
        masks = data.needing("attention_mask")
        if masks and (how := self.model.attn_implementation) not in (None, *READ):
            raise ConfigError(
                f"data.augment: {masks[0]} needs a mask, model.attn_implementation {how} reads none; "
                f"use {' or '.join(READ)}"
            )
        return data.sets

    def _check_parts(self, data: Mixture) -> None:
        """Whether every part of a mixture can be trained on with the terms that read it, and every term has a part."""
        terms = self.objective.terms
        for number, part in enumerate(data.parts):
            for name in part.terms or ():
                if name not in terms:
                    what = suggest(name, list(terms)) if terms else "; the objective has none"
                    raise ConfigError(f"data.parts[{number}].terms: no term '{name}'{what}")
            if part.terms == () and self.objective.lm_weight == 0:
                raise ConfigError(f"data.parts[{number}].terms: without one, and with lm_weight 0, it trains nothing")
            try:
                self.of_part(part)
            except ConfigError as error:
                raise ConfigError(
                    f"data.parts[{number}] ({part.label}): {error}; or say in its terms which terms read it"
                ) from error
        for name in terms:
            if all(part.terms is not None and name not in part.terms for part in data.parts):
                raise ConfigError(f"objective.terms.{name}: no part of the data has it among its terms")

    def of_part(self, part: Part) -> "Recipe":
        """The recipe of one part of a mixture, with the terms that read it."""
        assert isinstance(self.data, Mixture)
        terms = self.objective.terms
        kept = {name: term for name, term in terms.items() if part.terms is None or name in part.terms}
        return replace(self, data=self.data.text(part), objective=replace(self.objective, terms=kept))

    def _check_units(self) -> None:
        """Whether the data can have the grains that terms read."""
        if isinstance(self.data, Images):
            known: tuple[str, ...] = ()
        else:
            known = self.data.grains
        for name, term in self.objective.terms.items():
            grains, alone = units_read([term])
            for grain in grains:
                if grain not in known:
                    what = suggest(grain, list(known)) if known else "; images have none"
                    raise ConfigError(f"objective.terms.{name}: no units '{grain}'{what}; or give a rule in data.units")
            if alone and isinstance(self.data, Text) and self.data.packing == "none":
                raise ConfigError(
                    f"data.packing: none has no place for units that are read alone (objective.terms.{name}, "
                    f"{alone[0].grain}); use packed, or read: in_context"
                )

        if isinstance(self.data, Text) and not self.units[1] and (kinds := self.data.needing("units_alone")):
            raise ConfigError(f"data.augment: {kinds[0]} needs a term over units that are read alone; leave it out")

    @property
    def units(self) -> tuple[tuple[str, ...], tuple[UnitsAlone, ...]]:
        """Grains that the objective reads, and which units of them alone."""
        return units_read(self.objective.terms.values())

    @property
    def _source_kind(self) -> str:
        return kind_of(type(self.source))

    @property
    def source(self) -> TextSource | Images:
        """Where the data come from: the set of texts, or the images themselves; of a mixture its first part's."""
        data = self.data.text(self.data.parts[0]) if isinstance(self.data, Mixture) else self.data
        return data.part if isinstance(data, Text) else data

    @property
    def output_dir(self) -> Path:
        """The run folder."""
        return Path(self.training["output_dir"])

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


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A method, an experiment, a YAML file or a run folder, with dotlist overrides, checked whole.

    Without ``training.output_dir`` the run goes to ``runs/<name>``; resuming a run folder stays in it.
    """
    return build_recipe(compose(name, overrides), name, overrides)


def build_recipe(data: dict[str, Any], name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe that `compose` has put together from `name` and `overrides`."""
    where = Path(name).name if Path(name).exists() else str(name)
    recipe = parse(Recipe, data, where)
    training = check_training(recipe.training, recipe.trainer)
    _check_trainer(recipe, training)
    resumed = Path(name).is_dir() and training.get("resume_from_checkpoint")
    if resumed and not any(text.startswith("training.output_dir=") for text in overrides):
        training["output_dir"] = str(name)
    elif training.get("output_dir") is None:
        training["output_dir"] = str(Path("runs") / (Path(name).stem if Path(name).exists() else name))
    return replace(recipe, training=training)


def _check_trainer(recipe: Recipe, training: dict[str, Any]) -> None:
    """What the arguments ask of the other blocks."""
    held_out = not isinstance(recipe.data, Images) and recipe.data.validation is not None
    if not held_out and (training.get("eval_strategy", "no") != "no" or training.get("load_best_model_at_end")):
        key = "load_best_model_at_end" if training.get("load_best_model_at_end") else "eval_strategy"
        raise ConfigError(f"training.{key}: nothing is held out to evaluate on; set data.validation (texts only)")
    if isinstance(recipe.data, Mixture):
        _check_mixture(recipe.data, recipe.trainer, training)
    if recipe.trainer != "grpo":
        return
    if not isinstance(recipe.source, VerifiableSource):
        raise ConfigError(f"trainer: grpo needs data that check an answer, {kind_of(type(recipe.source))} cannot")
    group = training.get("num_generations", 8)
    if (step := training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]) % group:
        raise ConfigError(f"training.num_generations: {step} completions a step (batch) are not a multiple of {group}")
    if training.get("beta") and recipe.model.name is None:
        raise ConfigError("training.beta: the network to stay near is loaded again from model.name; give it")
    if isinstance(recipe.data, Text) and (recipe.data.augment or held_out):
        key = "augment" if recipe.data.augment else "validation"
        raise ConfigError(f"data.{key}: grpo reads what it has written itself; leave it out")
    if training.get("dataloader_num_workers"):
        raise ConfigError("training.dataloader_num_workers: grpo has nothing to load; leave it out")
    for name, term in recipe.objective.terms.items():
        if sets := sets_read(term):
            raise ConfigError(f"objective.terms.{name}: reads {sets[0]}, which completions do not have; leave it out")


def _check_mixture(data: Mixture, trainer: str, training: dict[str, Any]) -> None:
    if trainer == "grpo":
        raise ConfigError("data.kind: grpo writes its own texts, from the problems of one source; use kind: text")
    if data.streaming and training.get("max_steps", -1) <= 0:
        raise ConfigError("training.max_steps: a stream has no length; say how many steps to train")
    if training.get("load_best_model_at_end") and not training.get("metric_for_best_model"):
        names = [part.label for part in data.parts if part.validation is not None]
        raise ConfigError(f"training.metric_for_best_model: which part counts? Give eval_{names[0]}_loss, for one")


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe; it is itself a valid one."""
    write_text(path, yaml.safe_dump(dump(recipe), sort_keys=False, width=120))
