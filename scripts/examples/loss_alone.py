"""A loss by itself, in a network of your own: no model, recipe or trainer of this library is needed.

A loss of predictions and targets returns one value per row, and you take the mean; a loss of a set of samples returns
one number. Here two noisy views of the same points are pulled together (InfoNCE) and their embedding is kept from
collapse (SIGReg).
"""

import torch
from torch import nn

from latentlm.losses import InfoNce, Sigreg


def main() -> None:
    """Train an encoder and print how often a view finds its partner among all others."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 16))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-2)
    contrast, spread = InfoNce(temperature=0.1), Sigreg(num_slices=64)
    points = torch.randn(256, 8)
    for step in range(60):
        a, b = (encoder(points + 0.3 * torch.randn_like(points)) for _ in range(2))
        loss = contrast(a, b).mean() + 0.01 * spread(a, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0 or step == 59:
            found = (nn.functional.normalize(a, dim=-1) @ nn.functional.normalize(b, dim=-1).T).argmax(1)
            right = (found == torch.arange(len(points))).float().mean()
            print(f"step {step:2d}  loss {loss.item():.2f}  partner found {100 * right:.0f} %")


if __name__ == "__main__":
    main()
