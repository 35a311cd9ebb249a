"""A ViT that learns from pictures without labels: two crops of a picture agree, with the losses that text uses too."""

import torch
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTModel

from latentlm import get_latent_model
from latentlm.data.images import ImageCollator, ImageDataset, Scenes, Views

VIT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def main() -> None:
    """Eight steps of VICReg on generated pictures; a folder of pictures is `ImageFolder`."""
    model = ViTModel(ViTConfig(image_size=32, patch_size=8, **VIT), add_pooling_layer=False)

    model = get_latent_model(model, "vicreg").train()

    # two crops of each picture, and where their class tokens are: cls_1 and cls_2 pair them, cls is all of them
    views = Views(num=2, scale=(0.4, 1.0), jitter=0.4)
    collate = ImageCollator(views, None, size=32, patch=8, channels=3, sets=("cls", "cls_1", "cls_2"))
    pictures = ImageDataset(Scenes(num_train=256).pictures("train"), seed=0)
    loader = DataLoader(pictures, batch_size=32, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step, batch in enumerate(loader):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}  loss {loss.item():.2f}")

    features = model.eval()(pixel_values=collate([pictures[0]])["pixel_values"]).last_hidden_state
    print(f"features of two crops, class token and patches: {tuple(features.shape)}")


if __name__ == "__main__":
    main()
