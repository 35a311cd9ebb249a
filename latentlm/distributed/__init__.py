"""What several ranks need: collectives and sharded weights."""
