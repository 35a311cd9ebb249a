"""Are a model's concepts whole or fractured? Scores of its hidden states, each beside its null."""
