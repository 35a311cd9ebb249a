"""Units on two real ranks: losses and weights of one process that sees all conversations, whoever has more units."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from gloo_pool import launched
from tiny_chats import CHATS, tokenizer
from tiny_models import build
from tiny_trainers import arguments
from transformers import DataCollatorForSeq2Seq

from latentlm import get_latent_model
from latentlm.data import conversation, encode_dataset
from latentlm.distributed.collectives import world_size
from latentlm.trainers.latent_trainer import LatentTrainer

SHORT = [{"role": "user", "content": "Bye."}, {"role": "assistant", "content": "Bye."}]
LEVELS = {
    "cosine": {
        "levels": [{"grain": "sentence", "depth": "1/2", "predicts": ["next", "data"]}],
        "loss": "cosine",
        "target": {"teacher": "online"},
    },
    "info_nce": {
        "levels": [{"grain": "turn", "depth": "3/4", "predicts": ["next", "previous"]}],
        "target": {"teacher": "ema", "momentum": 0.9},
    },
}


def trained(name, folder):
    """Logs and weights of two steps of four conversations over all ranks."""
    with launched():
        network = build("llama", vocab_size=500, max_position_embeddings=512)
        terms = {"ladder": {"kind": "unit_levels", **LEVELS[name]}}
        model = get_latent_model(network, {"terms": terms, "monitor_every": 0}).train()
        tok = tokenizer("marked")
        rows = encode_dataset([conversation(chat) for chat in [*CHATS, SHORT]], tok, 256).to_list()
        data = Dataset.from_list([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
        options = {"per_device_train_batch_size": 4 // world_size(), "max_steps": 2, "logging_steps": 1}
        trainer = LatentTrainer(
            model,
            arguments(Path(folder), **options),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tok),
            processing_class=tok,
        )
        trainer.train()
        logs = [line for line in trainer.state.log_history if "data/value" in line]
        values = [{key: line[key] for key in line if "/" in key or key == "loss"} for line in logs]
        return values, {key: value.detach().clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", LEVELS)
def test_two_ranks_are_one_process(pool, name, tmp_path):
    logs, weights = trained(name, tmp_path / "one")
    assert len(logs) == 2
    assert sum(key.startswith("ladder/") and key.endswith("/value") for key in logs[0]) == 2
    assert all(value > 0 for line in logs for key, value in line.items() if key.endswith("/value"))
    for found, own in pool.run(trained, name, str(tmp_path / "two")):
        for line, wanted in zip(found, logs, strict=True):
            assert line == pytest.approx(wanted, rel=2e-5)
        assert own.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(own[key], value, rtol=1e-4, atol=2e-6, msg=key)
