"""Real data that every machine has: scikit-learn's handwritten digits, and the source text of Python's own library."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Part = Literal["train", "test"]
TRAIN_DIGITS = 1347
"""Three quarters of the 1797 images. The split is fixed: images in an order drawn once, from seed 0."""


@cache
def digits(part: Part) -> tuple[Tensor, Tensor]:
    """Images (count, 8, 8) float32 in [0, 1] and labels (count,) int64 of 0..9.

    Source: E. Alpaydin and C. Kaynak, UCI Optical Recognition of Handwritten Digits, as scikit-learn ships it.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    chosen = order[:TRAIN_DIGITS] if part == "train" else order[TRAIN_DIGITS:]
    images = torch.from_numpy(data.images[chosen] / 16).float()
    return images, torch.from_numpy(data.target[chosen]).long()


def patches(images: Tensor, size: int = 2) -> Tensor:
    """Images (..., h, w) as tokens (..., h w / size^2, size^2), row by row.

    Raises:
        ValueError: the size does not divide height and width.
    """
    if images.shape[-1] % size or images.shape[-2] % size:
        raise ValueError(f"patches of {size} do not tile an image of {tuple(images.shape[-2:])}; choose a divisor")
    tiles = images.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))  # (..., rows, size, columns, size)
    return tiles.transpose(-3, -2).flatten(-2).flatten(-3, -2)


@cache
def library_text(part: Part) -> Tensor:
    """Bytes of the standard library's top-level modules in order of their names, (count,) uint8; some 5 MB.

    Every tenth file is for testing, the others for training. The text differs between versions of Python.

    Raises:
        FileNotFoundError: this Python comes without the source of its library.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))
    if len(files) < 100:
        raise FileNotFoundError(f"{folder} has {len(files)} modules: use a Python that comes with its library's source")
    chosen = [file for i, file in enumerate(files) if (i % 10 == 9) == (part == "test")]
    return torch.from_numpy(np.frombuffer(b"".join(file.read_bytes() for file in chosen), dtype=np.uint8).copy())


def excerpts(text: Tensor, shape: tuple[int, ...], length: int, generator: torch.Generator) -> Tensor:
    """Random excerpts of a text (count,): (*shape, length) int64.

    Raises:
        ValueError: the text is shorter than one excerpt.
    """
    if len(text) < length:
        raise ValueError(f"the text has {len(text)} bytes, an excerpt {length}: give a longer text")
    starts = torch.randint(len(text) - length + 1, shape, generator=generator)
    return text[starts[..., None] + torch.arange(length)].long()
