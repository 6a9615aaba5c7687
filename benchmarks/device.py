"""The GPU that numbers are measured on: its state, and what it reaches in a plain matrix product and a plain copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.clock import time_all
from benchmarks.ratios import Timed

SIDE, COPIED = 8192, 2**30
"""Of the square matrices, and bytes of the copy."""


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
    """Clocks (MHz), power (W), temperature (C) and reasons for throttling, where NVML can be read; never set."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        return {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "sm_clock": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "memory_clock": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "throttling": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
    except pynvml.NVMLError as error:
        return {"unreadable": str(error)}
