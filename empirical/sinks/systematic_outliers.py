"""Small models with the attention variants of An et al., arXiv:2502.06415, on Bigram-Backcopy, and what is in them."""

from __future__ import annotations

from functools import cache

import numpy as np

from empirical.sinks.backcopy import Setting, held_out, losses, train
from empirical.sinks.inside import Inside
from empirical.sinks.sink_emergence import by_seed, insides

DEEP = {"layers": 2, "width": 64, "length": 24, "batch": 16, "steps": 500, "rate": 6e-3}
"""Two layers: 10 CPU-seconds for four seeds."""
NARROW = {"batch": 32, "steps": 600}
"""One layer of width 32: 20 CPU-seconds for twelve seeds."""
SEEDS = {"deep": 4, "narrow": 12}
SHOWN = 256
"""Sequences on which models are measured."""


def setting(size: str, variant: str) -> Setting:
    """Size "deep" or "narrow"."""
    chosen = DEEP if size == "deep" else NARROW
    return Setting(variant=variant, **chosen)


@cache
def inside(size: str, variant: str, seed: int) -> Inside:
    """What is inside the models of a variant, with the seeds in front, on sequences held out."""
    chosen = setting(size, variant)
    return insides(train(chosen, seed, SEEDS[size]), held_out(chosen, SHOWN, seed))


def first_layer(size: str, variant: str, seed: int, what: str) -> np.ndarray:
    """(seeds,) of the first layer: "importance" and "sinks" (share of sequences) of <s>, or its relative "values"."""
    found = getattr(inside(size, variant, seed), what)[:, 0]
    return by_seed(found if what == "values" else found[..., 0])


@cache
def held_out_losses(size: str, variant: str, seed: int) -> np.ndarray:
    """(seeds,) mean loss on sequences held out, nats a token."""
    chosen = setting(size, variant)
    found: np.ndarray = (
        losses(train(chosen, seed, SEEDS[size]), held_out(chosen, 4 * SHOWN, seed)).double().cpu().numpy()
    )
    return found
