"""The parts of a term: taps, positions, targets, predictors, heads, teachers."""
