"""Readouts of frozen states shared by the evaluations."""
