"""What leaves a run: a plain checkpoint, its model card, its data as files."""
