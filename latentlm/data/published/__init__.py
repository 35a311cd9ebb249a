"""Published data sets of the reversal literature."""
