"""Chats with TRL's SFTTrainer and a latent loss: TRL computes its own loss, so use LatentSFTTrainer in its place."""

import tempfile

from datasets import Dataset
from transformers import AutoModelForCausalLM, LlamaConfig
from trl import SFTConfig

from latentlm import LatentSFTTrainer, get_latent_model
from latentlm.data import bpe_tokenizer

CHATS = [
    [{"role": "user", "content": f"What is {a} plus {b}?"}, {"role": "assistant", "content": f"It is {a + b}."}]
    for a in range(6)
    for b in range(6)
]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<eos>{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def main(folder: str) -> None:
    """Fine-tune on the chats, with the loss on the assistant's tokens only."""
    # a tiny model and tokenizer made here; yours come from_pretrained, with a chat template of their own
    tokenizer = bpe_tokenizer([m["content"] for chat in CHATS for m in chat], vocab_size=300)
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **LLAMA))

    model = get_latent_model(model, "next_latent")

    trainer = LatentSFTTrainer(
        model,
        SFTConfig(
            folder, max_steps=10, logging_steps=5, assistant_only_loss=True, bf16=False, report_to="none", use_cpu=True
        ),
        train_dataset=Dataset.from_dict({"messages": CHATS}),
        processing_class=tokenizer,
    )
    trainer.train()
    model.save_pretrained(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
