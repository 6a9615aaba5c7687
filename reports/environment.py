"""Where a run happened: versions, device, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "sympy",
    "python-flint",
    "torch",
    "triton",
    "transformers",
    "hypothesis",
    "pytest",
    "matplotlib",
)


def describe(
    root: Path, *, suite_seed: int, profile: str, device: str, scale: str = "small", checkpoint: str | None = None
) -> dict[str, Any]:
    """One entry of `environments` in the results."""
    return ({} if checkpoint is None else {"checkpoint": checkpoint}) | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": None if (status := _git(root, "status", "--porcelain")) is None else bool(status),
        "suite_seed": suite_seed,
        "profile": profile,
        "scale": scale,
    }


def origin(results: dict[str, Any], check: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Where and when a check's numbers were measured: in its run, or in an earlier one that it judged."""
    where = results["environments"][check["environment"]]
    return where, where.get("started", results["started"])


def device() -> str:
    """Name of the accelerator this process used; "cpu" when it never imported torch or has none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "cpu"
    return str(torch.cuda.get_device_name())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command; None outside a checkout or without git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
