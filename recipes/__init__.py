"""Recipes: a method is YAML over parts; `latentlm recipes` lists what there is."""
