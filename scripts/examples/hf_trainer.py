"""Your Hugging Face Trainer with a latent loss: one more line, and one more word where each term shall be logged."""

import tempfile

from datasets import Dataset
from transformers import AutoModelForCausalLM, DataCollatorForLanguageModeling, LlamaConfig, TrainingArguments

from latentlm import LatentTrainer, get_latent_model
from latentlm.data import bpe_tokenizer

TEXTS = ["Paris is the capital of France.", "Rome is the capital of Italy.", "Water boils at 100 degrees Celsius."] * 16
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def main(folder: str) -> None:
    """Train, save, and load the saved model without latentlm."""
    # a tiny model made here; yours is AutoModelForCausalLM.from_pretrained("HuggingFaceTB/SmolLM2-135M")
    tokenizer = bpe_tokenizer(TEXTS, vocab_size=300)
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **LLAMA))

    model = get_latent_model(model, "nitp")

    data = Dataset.from_dict({"text": TEXTS}).map(lambda row: tokenizer(row["text"]), remove_columns="text")
    trainer = LatentTrainer(  # transformers.Trainer works too; this one logs every term
        model=model,
        args=TrainingArguments(folder, max_steps=10, logging_steps=5, report_to="none", use_cpu=True),
        train_dataset=data,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
        head_learning_rate=1e-3,  # the heads are new, so they may learn faster than the model
    )
    trainer.train()

    model.save_pretrained(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder)  # the heads are in the checkpoint and are ignored here
    print(f"saved and loaded: {type(plain).__name__} with {plain.num_parameters()} weights")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
