"""What can a frozen ViT's features tell: classes, factors of every level, pixels, at every depth, beside the floors.

Reads scenes or any set of images; the run's own by default. Writes eval/vision.json and pictures beside it.
"""

from latentlm.config.schema import ConfigError
from latentlm.data.images import Images
from latentlm.experiment.recipe import load_recipe
from latentlm_evals.models.run_dir import is_run, write_result
from latentlm_evals.models.text_encoder import load_encoder
from latentlm_evals.vision.evaluate import Options, evaluate
from latentlm_evals.vision.features import pictures
from latentlm_evals.vision.table import table

__all__ = ["Options", "evaluate", "run", "table"]


def run(name: str, options: Options) -> dict:
    """Score a run folder, a Hugging Face ViT folder or a hub name; write the result, and pictures beside it."""
    source = options.source
    if source is None and is_run(name):
        data = load_recipe(name).source
        source = data.source if isinstance(data, Images) else None
    if source is None:
        raise ConfigError(f"source: {name} was not trained on images of its own; name some, such as --source scenes")
    encoder = load_encoder(name, options.device)
    if encoder.kind != "image":
        raise ConfigError(f"{name}: reads no images; name a ViT")
    result = evaluate(encoder, source, options)
    result["config"]["model_path"] = name
    path = write_result(result, "vision", name, options.out)
    if options.figures and path is not None:
        from latentlm_evals.vision.figures import draw

        some = [pictures(source, split, num, options.seed) for split, num in (("train", 2000), ("test", 50))]
        draw(path.parent, result, encoder, *some, options.at)
    return result
