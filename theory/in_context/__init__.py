"""Learning from examples in the prompt."""
