"""Evaluations of trained models: one folder each, one function from a model to numbers."""
