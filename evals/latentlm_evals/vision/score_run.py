"""From a run folder or checkpoint to a scored ViT, as the command line does it."""

from dataclasses import replace

from latentlm.config.schema import ConfigError
from latentlm.data.images import Images
from latentlm.experiment.recipe import load_recipe
from latentlm.result import Result
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.images import pictures
from latentlm_evals.models.run_dir import is_run, write_result
from latentlm_evals.models.text_encoder import load_encoder
from latentlm_evals.vision.options import Options
from latentlm_evals.vision.scoring import evaluate


def run(name: str, options: Options) -> Result:
    """Score a run folder, a Hugging Face ViT folder or a hub name; write the result, and pictures beside it."""
    source = options.source
    if source is None and is_run(name):
        data = load_recipe(name).source
        source = data.source if isinstance(data, Images) else None
    if source is None:
        raise ConfigError(f"source: {name} was not trained on images of its own; name some, such as source=scenes")
    encoder = load_encoder(name, options.device)
    if not isinstance(encoder, ImageEncoder):
        raise ConfigError(f"{name}: reads no images; name a ViT")
    result = evaluate(encoder, source, options)
    result = replace(result, config=result.config | {"model_path": name})
    path = write_result(result, "vision", name, options.out)
    if options.figures and path is not None:
        from latentlm_evals.vision.figures import draw

        train, test = (pictures(source, split, num, options.seed) for split, num in (("train", 2000), ("test", 50)))
        draw(path.parent, encoder, train, test, options.at)
    return result
