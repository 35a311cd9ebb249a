"""All weights trained on labels: from the run's weights, and for the floor from fresh ones."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentlm.data.images import Pictures
from latentlm_evals.models.image_encoder import ImageEncoder
from latentlm_evals.vision.encode import pixels


def finetune(
    encoder: ImageEncoder,
    train: Pictures,
    test: Pictures,
    label: str,
    *,
    epochs: int,
    rates: tuple[float, ...] = (3e-4, 1e-3),
    seed: int = 0,
) -> Tensor:
    """Class of each test image by the network and a linear layer on its mean patch; all weights are trained.

    AdamW with weight decay 0.05 and a one-cycle schedule, batches of 64, no augmentation; the learning rate is the best
    on a tenth of `train`.
    """
    labels = torch.from_numpy(train.labels[label])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held, rest = order[: len(labels) // 10], order[len(labels) // 10 :]
    shown = pixels(encoder, train.images)
    found = [_fit(encoder, shown[rest], labels[rest], rate, epochs, seed) for rate in rates]
    hits = [int((_guess(network, shown[held]) == labels[held]).sum()) for network in found]
    return _guess(found[hits.index(max(hits))], pixels(encoder, test.images))


class _Classifier(nn.Module):
    def __init__(self, encoder: ImageEncoder, patches: int, num_classes: int):
        super().__init__()
        self.model, self.patches = copy.deepcopy(encoder.model), patches
        self.norm, self.head = nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-1]
        return self.head(self.norm(hidden[:, -self.patches :].mean(1)))


def _fit(encoder: ImageEncoder, pixels: Tensor, labels: Tensor, rate: float, epochs: int, seed: int) -> _Classifier:
    device = encoder.model.device
    torch.manual_seed(seed)
    patches = (pixels.shape[-2] // encoder.patch[0]) * (pixels.shape[-1] // encoder.patch[1])
    network = _Classifier(encoder, patches, int(labels.max()) + 1).to(device).train()
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * -(-len(pixels) // 64))
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels), generator=draw).split(64):
            F.cross_entropy(network(pixels[batch].to(device)), labels[batch].to(device)).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return network.eval()


@torch.no_grad()
def _guess(network: _Classifier, pixels: Tensor) -> Tensor:
    device = network.head.weight.device
    return torch.cat([network(part.to(device)).argmax(1).cpu() for part in pixels.split(250)])
