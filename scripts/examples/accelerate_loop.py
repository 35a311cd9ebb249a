"""Your own training loop with Accelerate: `output.loss` is the whole objective, and its parts are in the output."""

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, LlamaConfig

from latentlm import get_latent_model
from latentlm.data import bpe_tokenizer

TEXTS = ["Paris is the capital of France.", "Rome is the capital of Italy.", "Water boils at 100 degrees Celsius."] * 16
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def main() -> None:
    """Twelve steps on a tiny model made here."""
    tokenizer = bpe_tokenizer(TEXTS, vocab_size=300)
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **LLAMA))

    model = get_latent_model(model, "nitp").train()

    accelerator = Accelerator(cpu=True)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    loader = DataLoader([tokenizer(text) for text in TEXTS], batch_size=4, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for step, batch in enumerate(loader):
        output = model(**batch)
        accelerator.backward(output.loss)  # = data_loss + latent_loss
        optimizer.step()
        optimizer.zero_grad()
        if step % 4 == 3:
            print(f"step {step}  next token {output.data_loss.item():.2f}  latent {output.latent_loss.item():.2f}")


if __name__ == "__main__":
    main()
