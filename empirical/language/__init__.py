"""Language models: what their probabilities and their layers do."""
