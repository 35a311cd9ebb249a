"""Attach latent terms to a model in place: hooks collect states, run the heads and add their loss."""
