"""Recipes as plain data: strict parsing, overrides, the catalog of built-in recipes, command-line options."""
