"""A recipe becomes a run: data, model, trainer, run folder."""
