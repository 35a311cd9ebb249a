"""Built-in recipes made small."""

import json

from latentlm.config.catalog import method_names

OF_CHATS = ("chats", "llm_jepa", "hierarchy_chat")
OF_PROSE = ("prose", "hierarchy", "hierarchy_documents")


def is_vision(name: str) -> bool:
    return name == "scenes" or (name in method_names() and method_names()[name].parent.name == "vision")


def tiny(name: str) -> list[str]:
    """Overrides that make a recipe cost a second; the objective is left as it is, but for its monitors."""
    common = [
        "training.logging_steps=1",
        "training.save_strategy=no",
        "training.max_steps=4",
        "objective.monitor_every=2",
    ]
    if name == "smoke_vision":
        return common
    if is_vision(name):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        return [
            *common,
            *(f"model.config.{key}={value}" for key, value in sizes.items()),
            "data.source={kind: scenes, num_train: 32, num_test: 8}",
            "training.per_device_train_batch_size=8",
        ]
    if name == "grpo":
        source = "data.source={kind: arithmetic, num_train: 32, num_test: 8, highest: 9}"
        batch = ["training.per_device_train_batch_size=8", "training.num_generations=4"]
        return [*common, source, *batch, "training.max_completion_length=3"]
    model = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    model |= {"num_attention_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True}
    source = {"kind": "facts", "num_a_to_b": 4, "num_b_to_a": 4, "num_both": 8, "templates_per_fact": 2}
    if name in OF_CHATS + OF_PROSE:
        source = {"kind": "people", "num": 16, "form": "chat" if name in OF_CHATS else "prose"}
        model["max_position_embeddings"] = 128
    if name == "grammar":
        source = {"kind": "grammar", "sentences": 64, "held_out": 16}
    if name == "arithmetic":
        source = {"kind": "arithmetic", "num_train": 32, "num_test": 8, "highest": 9}
    return [
        f"model={json.dumps({'config': model})}",
        f"data.source={json.dumps(source)}",
        f"data.max_length={128 if name in OF_CHATS + OF_PROSE else 48}",
        "training.per_device_train_batch_size=8",
        "training.learning_rate=1e-3",
        "training.warmup_steps=0",
        *common,
    ]
