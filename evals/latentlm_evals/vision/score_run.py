"""From a run folder or checkpoint to a scored ViT, as the command line does it."""

from dataclasses import replace

from latentlm.config.schema import ConfigError
from latentlm.data.images import Images, Pictures
from latentlm.data.images.dataset import Source, Stored, source_of
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Result
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.images import pictures
from latentlm_evals.models.run_dir import is_run, write_result
from latentlm_evals.models.text_encoder import load_encoder
from latentlm_evals.vision.options import Options
from latentlm_evals.vision.scoring import evaluate

SHOWN = {"train": 2000, "test": 50}  # images that the pictures are made of


def run(name: str, options: Options) -> Result:
    """Score a run folder, a Hugging Face ViT folder or a hub name; write the result, and pictures beside it."""
    trained_on = _own_source(name)
    if options.source is None and trained_on is None:
        raise ConfigError(f"source: {name} was not trained on images of its own; name some, such as source=scenes")
    source = trained_on if options.source is None else source_of(options.source)
    assert source is not None
    encoder = load_encoder(name, options.device)
    if not isinstance(encoder, ImageEncoder):
        raise ConfigError(f"{name}: reads no images; name a ViT")
    train = pictures(source, "train", options.num_train, options.seed, encoder)
    test = pictures(source, "test", options.num_test, options.seed, encoder)
    result = evaluate(encoder, source, options, (train, test))
    if source == trained_on and has_seen_all(source):
        told = (
            "seen: the network was trained on the test images as well, without their classes; train it with test: 0.2 "
            "in data.source to keep them out"
        )
        result = replace(result, warnings=[*result.warnings, told])
    result = replace(result, config=result.config | {"model_path": name})
    path = write_result(result, "vision", name, options.out)
    if options.figures and path is not None:
        from latentlm_evals.vision.figures import draw

        some = (_first(train, SHOWN["train"]), _first(test, SHOWN["test"]))
        draw(path.parent, encoder, *some, options.at)
    return result


def _own_source(name: str) -> Source | None:
    data = load_recipe(name).data if is_run(name) else None
    return data.part if isinstance(data, Images) else None


def has_seen_all(source: Source) -> bool:
    """Whether training on it leaves no images for an evaluation, which then sets some aside."""
    if not isinstance(source, Stored):
        return False
    try:
        source.stored("test")
    except ValueError:
        return True
    return False


def _first(shown: Pictures, num: int) -> Pictures:
    return shown.take(slice(num))
