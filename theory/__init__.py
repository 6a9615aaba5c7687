"""Closed forms, bounds and constructions, in numpy, scipy, sympy and python-flint. Never imports torch."""
