"""An objective built in Python: which state predicts which other one, through what, by which loss."""

import torch
import yaml
from transformers import AutoModelForCausalLM, LlamaConfig

from latentlm import Next, Objective, Online, Predict, Regularize, Tap, get_latent_model, losses, predictors

LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}

OBJECTIVE = Objective(
    lm_weight=1.0,
    terms={
        # half of the depth predicts its own state at the next position, which gets no gradient
        "next_state": Predict(
            source=Tap(depth="1/2"),
            target=Online(tap=Tap(depth="1/2", at=Next()), stop_grad=True),
            predictor=predictors.Mlp(),
            loss=losses.SmoothL1(),
            weight=0.1,
        ),
        # and the states of a batch keep an isotropic Gaussian shape
        "shape": Regularize(
            source=Tap(depth="1/2"), loss=losses.Sigreg(num_slices=64), sample_axis="positions", weight=0.01
        ),
    },
)


def main() -> None:
    """Attach it to a tiny model and print every part of the loss."""
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=100, **LLAMA))
    model = get_latent_model(model, OBJECTIVE).train()
    ids = torch.randint(100, (4, 16))
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    print(f"loss {output.loss.item():.3f} = {output.data_loss.item():.3f} + {output.latent_loss.item():.3f}")

    # it is saved with the model, and as YAML it is a recipe
    print(yaml.safe_dump({"objective": model.config.latentlm["objective"]}, sort_keys=False))


if __name__ == "__main__":
    main()
