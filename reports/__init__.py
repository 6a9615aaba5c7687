"""Claims, checks, controls, evidence, verdicts: the vocabulary of Attest, its pytest plugin, its page and its command line."""
