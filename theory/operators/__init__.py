"""Attention operators: the ones people use, and the ones papers propose in their place."""
