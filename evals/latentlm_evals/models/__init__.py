"""Models as evaluations use them: loading, hidden states, generation, interventions."""
