"""Small vision transformers on handwritten digits with sigmoid attention and its rivals.

What differs between variants is the operator alone: same initial weights, same batches, same number of steps. Images
are 16 patches of 2 x 2 pixels, n = 16. Several seeds are trained side by side. Losses are nats an image on test digits.
Source: the question of Ramapuram et al., arXiv:2409.04431, section 5, at a small size; network and batches are those
of `empirical.operators.mala`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch.nn.functional import cross_entropy

from empirical.data import digits, patches
from empirical.operators.mala import Size, fit_digits, vision_transformer
from empirical.training import Models, device
from theory.operators.attention import elementwise, sigmoid, softmax

SIZES = {"small": Size(32, 600, 16, 5e-3, 16, 2, 2), "full": Size(32, 3000, 64, 3e-3, 32, 4, 3)}

VARIANTS: dict[str, Callable[..., Any]] = {
    "softmax": softmax,
    "b = -ln n": sigmoid,
    "plain": partial(sigmoid, offset=0.0),
    "ReLU": partial(elementwise, positive="relu", normalise="none"),
    "ReLU / n": partial(elementwise, positive="relu", normalise="length"),
    "no attention": partial(sigmoid, offset=-30.0),
}
"""Plain is sigmoid attention with b = 0; without attention: b = -30 leaves no weight above 1e-12 at small logits."""


def trained(variant: str, scale: str, seed: int) -> Models:
    """Models of one variant, from the cache where they were trained before.

    Raises:
        KeyError: no such variant.
    """
    size = SIZES[scale]
    build = partial(vision_transformer, VARIANTS[variant], size)
    return fit_digits(f"sigmoid-vision-{variant}", __file__, variant, size, build, seed)


def losses(models: Models) -> np.ndarray:
    """(seeds,) mean loss on the 450 test digits."""
    images, labels = (one.to(device()) for one in digits("test"))
    found = models.each(lambda model, tokens: cross_entropy(model(tokens), labels), patches(images))
    result: np.ndarray = found.double().cpu().numpy()
    return result
