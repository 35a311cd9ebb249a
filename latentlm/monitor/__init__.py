"""Detached statistics that tell collapse from learning."""
