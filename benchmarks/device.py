"""The GPU that numbers are measured on: its state, and what it reaches in a plain matrix product and a plain copy.

`python -m benchmarks.device` says in a line what this machine's GPU is and how it is doing; exit status 2 without one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.clock import time_all
from benchmarks.ratios import Timed

SIDE, COPIED = 8192, 2**30
"""Of the square matrices, and bytes of the copy."""
REASONS = {
    0x1: "idle", 0x2: "clocks set by an application", 0x4: "power cap", 0x8: "hardware slowdown",
    0x10: "in step with another GPU", 0x20: "too warm (software)", 0x40: "too warm (hardware)",
    0x80: "power brake", 0x100: "clocks of the display",
}  # fmt: skip
"""Bits by which NVML says why clocks are below their highest (nvmlClocksEventReason...)."""


@dataclass(frozen=True)
class Ceilings:
    """bf16 FLOP/s of a square matrix product, and bytes a second of a copy, read and written; random data."""

    flops: float
    bytes: float


def ceilings(seed: int = 0) -> Ceilings:
    """Measured now: compare only what was measured in the same process."""
    generator = torch.Generator("cuda").manual_seed(seed)
    a, b = (torch.randn(SIDE, SIDE, generator=generator, device="cuda").bfloat16() for _ in range(2))
    source = torch.randn(COPIED // 4, generator=generator, device="cuda")
    timed: dict[str, Timed] = time_all(
        {"matmul": lambda given: {"": a @ b}, "copy": lambda given: {"": source.clone()}}, [{}, {}], rounds=20
    )
    return Ceilings(2 * SIDE**3 / timed["matmul"].median * 1e3, 2 * COPIED / timed["copy"].median * 1e3)


def state() -> dict[str, Any]:
    """Clocks (MHz), power and its limit (W), temperature (C), reasons for slower clocks; read from NVML, never set.

    What cannot be read is left out, and `unreadable` says why.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return {"unreadable": "nvidia-ml-py is not installed"}
    found: dict[str, Any] = {}
    try:
        nvml.nvmlInit()
        # By its own number: NVML counts all GPUs, torch those that CUDA_VISIBLE_DEVICES shows it.
        gpu = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties().uuid}")
    except nvml.NVMLError as error:
        return {"unreadable": str(error)}
    readings = {
        "driver": nvml.nvmlSystemGetDriverVersion,
        "sm_clock": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_clock": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "power": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        "power_limit": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
        "temperature": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "throttling": lambda: reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)),
    }
    for name, read in readings.items():
        try:
            found[name] = read()
        except nvml.NVMLError as error:
            found["unreadable"] = f"{name}: {error}"
    return found


def reasons(bits: int) -> list[str]:
    """NVML's bits in words; a bit that has no name here keeps its number."""
    return [REASONS.get(bit, f"reason {bit:#x}") for bit in (1 << at for at in range(64)) if bits & bit]


def in_words(found: Mapping[str, Any]) -> str:
    """A state in a line."""
    units = {"sm_clock": "MHz", "power": "W", "temperature": "C"}
    parts = [f"{name.replace('_', ' ')} {found[name]:.0f} {unit}" for name, unit in units.items() if name in found]
    if "throttling" in found:
        parts.append(f"clocks held by: {', '.join(found['throttling']) or 'nothing'}")
    if "unreadable" in found:
        parts.append(f"not readable: {found['unreadable']}")
    return ", ".join(parts)


def main() -> int:
    if not torch.cuda.is_available():
        print("no GPU here that torch can use: run on a machine with one, with torch's build for CUDA", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}: {in_words(state())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
