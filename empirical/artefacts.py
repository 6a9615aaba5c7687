"""Trained parameters, kept by a hash of what made them, and shared by checks, processes and runs.

The key of an artefact is the source text of all modules of `theory` and `empirical` that its code imports, directly or
not, its configuration, and the version of torch. So nothing outlives a change of the code, and nobody has to remember
to clear anything. Files are safetensors (no pickle), in $ATTEST_CACHE or ~/.cache/attest; the folder may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from empirical.sources import modules_behind

ROOT = Path(__file__).resolve().parents[1]
Tensors = dict[str, Tensor]


def folder() -> Path:
    """Where artefacts lie; made if need be."""
    path = Path(os.environ.get("ATTEST_CACHE") or Path.home() / ".cache" / "attest")
    path.mkdir(parents=True, exist_ok=True)
    return path


def artefact(name: str, code: str, config: Mapping[str, Any], make: Callable[[Path], Tensors]) -> Tensors:
    """The tensors that `make` returns, from the cache if they were made before.

    One process makes them, others that want the same wait. `make` gets a path at which it may keep unfinished work (see
    `save`); it is removed when the work is done.

    Args:
        name: of the file, for people.
        code: `__file__` of the module whose code `make` runs.
        config: all that the result depends on beside the code, as JSON.
        make: called at most once.

    Raises:
        TypeError: the configuration is not JSON.
    """
    path = folder() / f"{name}-{key(code, config)}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            unfinished = path.with_suffix(".partial")
            save(make(unfinished), path)
            unfinished.unlink(missing_ok=True)
        return load_file(path)


def key(code: str, config: Mapping[str, Any]) -> str:
    """Twenty hexadecimal digits that name a result."""
    digest = hashlib.sha256(json.dumps([config, torch.__version__], sort_keys=True).encode())
    for path in sorted(modules_behind(ROOT, Path(code).resolve())):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:20]


def save(tensors: Tensors, path: Path, **metadata: str) -> None:
    """Write the file whole or not at all."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, scratch, metadata)
    scratch.replace(path)
