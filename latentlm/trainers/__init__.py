"""Hugging Face and TRL trainers that keep the latent terms."""
