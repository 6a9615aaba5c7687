"""Claims, checks, controls, evidence, verdicts: their pytest plugin, the page and the command line."""
