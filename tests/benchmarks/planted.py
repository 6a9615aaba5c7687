"""Records as `python -m benchmarks` would keep them, with times that a test chooses."""

from dataclasses import replace

import numpy as np

from benchmarks.ratios import Timed
from benchmarks.records import Record, Row

DEVICE = "NVIDIA H200"
GREEN = {"passed": True, "outputs": 4, "failures": [], "refused": {"last tile dropped": 2},
         "closest": {"case": "queries=64", "output": "o", "error": 1e-3, "budget": 2e-3}}  # fmt: skip
SETTINGS = [{"width": width, "causal": causal} for width in (64, 128) for causal in (False, True)]
LENGTHS = (1024, 4096, 16_384)


def rounds(milliseconds, count=20, spread=0.01, seed=0):
    return Timed(np.random.default_rng(seed).normal(milliseconds, spread * milliseconds, count))


def row(length, slower, *, width=64, causal=False, backward=False, **more):
    """A case in which the kernel takes length / 1024 ms, and each baseline `slower[name]` times as long."""
    fields = {"queries": length, "keys": length, "width": width, "batch": 16_384 // length, "heads": 2048 // width,
              "causal": causal, "backward": backward, "dtype": "bfloat16"} | more  # fmt: skip
    label = " ".join(f"{name}={value}" for name, value in fields.items() if value not in (False, None))
    times = {name: rounds(factor * length / 1024, seed=at) for at, (name, factor) in enumerate(slower.items(), 1)}
    flops = 4e9 * (0.5 if causal else 1) * length**2
    return Row(label, fields, flops, length * 1e4, {"fast": rounds(length / 1024)} | times)


def record(rows=None, **changes):
    """Of the operation `sum`, by default at three lengths in four settings against one baseline."""
    if rows is None:
        rows = [row(length, {"SDPA/flash": 1.25}, **setting) for setting in SETTINGS for length in LENGTHS]
    environment = {"device": DEVICE, "packages": {"torch": "2.11.0", "triton": "3.6.0"}, "commit": "c0ffee",
                   "dirty": False, "python": "3.12.3", "platform": "Linux", "processor": "x86_64, 16 cores",
                   "suite_seed": 0, "profile": "bench", "scale": "small"}  # fmt: skip
    made = Record(
        "sum", "2026-11-25T02:00:00+00:00", environment, GREEN, code="1234",
        ceilings={"flops": 8e14, "bytes": 4e12}, state={"before": {"throttling": []}, "after": {}}, rows=tuple(rows),
    )  # fmt: skip
    return replace(made, **changes)
