"""Attention sinks and outliers: where they come from, and what papers do with them."""
