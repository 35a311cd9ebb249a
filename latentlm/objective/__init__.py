"""Terms and their sum: what predicts what, how much it weighs, one loss."""
