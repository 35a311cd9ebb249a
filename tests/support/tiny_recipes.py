"""Built-in recipes made small."""

import json


def tiny(name: str) -> list[str]:
    """Overrides that make a recipe cost a second; the objective is left as it is, but for its monitors."""
    common = ["run={log_every: 1, save_every: 0}", "objective.monitor_every=2"]
    if name == "smoke/vision":
        return [*common, "optim.steps=4"]
    if name.startswith("vision/"):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        model = [f"model.config.{key}={value}" for key, value in sizes.items()]
        return [
            *common,
            *model,
            "data.source={kind: scenes, num_train: 32, num_test: 8}",
            "batch.size=8",
            "optim.steps=4",
        ]
    if name == "text/grpo":
        data = "data={kind: arithmetic, num_train: 32, num_test: 8, highest: 9}"
        return [*common, data, "batch.size=8", "trainer.group=4", "trainer.max_completion=3", "optim.steps=4"]
    model = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    model |= {"num_attention_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True}
    facts = {"kind": "facts", "num_a_to_b": 4, "num_b_to_a": 4, "num_both": 8, "templates_per_fact": 2}
    if name == "text/arithmetic":
        facts = {"kind": "arithmetic", "num_train": 32, "num_test": 8, "highest": 9}
    return [
        f"model={json.dumps({'config': model})}",
        f"data={json.dumps(facts)}",
        "batch={size: 8, max_length: 48}",
        "optim={steps: 4, learning_rate: 1e-3}",
        *common,
    ]
