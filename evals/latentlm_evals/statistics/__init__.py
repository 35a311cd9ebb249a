"""Intervals, ranks and tests shared by the evaluations."""
