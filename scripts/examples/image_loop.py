"""Your own loop on images: torchvision's transforms make the views, `image_collator` masks them and adds the sets."""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import ViTConfig, ViTModel

from latentlm import get_latent_model, image_collator, latent_state
from latentlm.data.images import Random, Views

VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
CROP = v2.Compose(
    [
        v2.RandomResizedCrop(32, (0.4, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.4, 0.4, 0.2, 0.1),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.5] * 3),
    ]
)


def main() -> None:
    """Twelve steps of DINOv2, which needs two crops and hidden patches, on pictures made here."""
    model = ViTModel(ViTConfig(image_size=32, patch_size=4, **VIT), add_pooling_layer=False)
    model = get_latent_model(model, "dinov2").train()

    # two views of each image, some patches of which are hidden; the model says which sets its terms read
    collate = image_collator(model, Views(num=2), Random((0.1, 0.5), drop=False))

    def crops(images: list[torch.Tensor]) -> dict:
        return collate.of_views([torch.stack([CROP(image) for image in images]) for _ in range(2)])

    accelerator = Accelerator(cpu=True)
    images = [torch.randint(0, 255, (3, 48, 40), dtype=torch.uint8) for _ in range(96)]  # or torchvision's ImageFolder
    loader = DataLoader(images, batch_size=16, shuffle=True, collate_fn=crops)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = 2 * len(loader)
    latent_state(model).steps.total = steps  # the teacher's momentum ends at 1
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for step, inputs in enumerate(batch for _ in range(2) for batch in loader):
        loss = model(**inputs).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
