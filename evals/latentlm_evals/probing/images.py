"""What probes look for in an image: its label, or every factor of generated scenes."""

import numpy as np

from latentlm.data.images import Scenes
from latentlm.data.images.dataset import Source
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.models.images import pictures
from latentlm_evals.probing.properties import Property

QUARTERS = 4


def image_factors(source: Source, count: int, seed: int, encoder: ImageEncoder | None = None) -> list[Property]:
    """A property for each factor of the test images; magnitudes are cut into quarters of equal size.

    The entity of a scene is its animal: a body is read off animals that no probe was fitted on. Which animal it is, and
    the label of any other image, can only be told for images of animals and classes that probes know; there every image
    is its own entity.
    """
    shown = pictures(source, "test", count, seed, encoder)
    inputs = list(shown.images.transpose(0, 2, 3, 1))
    single = [str(place) for place in range(len(inputs))]
    found = []
    for name, values in shown.labels.items():
        is_class = values.dtype.kind in "iu"
        edges = [] if is_class else np.quantile(values, np.arange(1, QUARTERS) / QUARTERS)
        classes, labels = np.unique(values if is_class else np.searchsorted(edges, values), return_inverse=True)
        animals = isinstance(source, Scenes) and name != "identity"
        entities = [str(animal) for animal in shown.labels["identity"]] if animals else single
        title = name if is_class else f"{name}, in quarters"
        found.append(Property(title, inputs, labels.tolist(), entities, [""] * len(inputs), len(classes)))
    return found
