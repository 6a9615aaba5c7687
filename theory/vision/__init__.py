"""Attention to images: classification, generation."""
