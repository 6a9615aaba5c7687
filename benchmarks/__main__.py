"""`python -m benchmarks NAME...`: the gate, then, on a GPU, the clock. No number without a green gate.

`--json FILE` keeps what was measured, with device, versions, date and seed; `--gate` stops after the gate.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import clock, device
from benchmarks.gate import Gate, gate
from benchmarks.operation import Bench, Case, Unsupported
from benchmarks.ratios import ratio
from reports.environment import describe
from reports.files import write_whole

NAMES = ("flash_sigmoid",)
SETS = 3
"""Different inputs that a contender meets in turn."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 when every gate is green and the clock can be trusted, 1 when not, 2 for a wrong question."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results")
    parser.add_argument("--gate", action="store_true", help="the gate alone, which also runs in Triton's interpreter")
    parser.add_argument("--only", default="", metavar="TEXT", help="time only cases whose label contains this")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cpu" and not options.gate:
        print("benchmarks: no GPU here; --gate runs the gate in Triton's interpreter (TRITON_INTERPRET=1)")
        return 2
    measured = [
        measure(importlib.import_module(f"benchmarks.{name}").BENCH, where, options.seed, options.gate, options.only)
        for name in options.names
    ]
    if options.json:
        root = Path(__file__).parents[1]
        used = torch.cuda.get_device_name() if where.type == "cuda" else "cpu"
        environment = describe(root, suite_seed=options.seed, profile="bench", device=used)
        kept = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "environment": environment,
                "benches": measured}  # fmt: skip
        write_whole(options.json, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    return 0 if all(one["passed"] for one in measured) else 1


def measure(bench: Bench, where: torch.device, seed: int, gate_only: bool, only: str) -> dict[str, Any]:
    """Gate and, where it is green, times of one bench; printed as they come."""
    judged = gate(bench, device=where, seed=seed)
    print(f"{bench.name}: gate {'passed' if judged.passed else 'FAILED'}: {len(judged.judged)} outputs, "
          f"{len(judged.refused)} controls")  # fmt: skip
    for line in judged.failures:
        print(f"  {line}")
    found: dict[str, Any] = {"name": bench.name, "passed": judged.passed, "gate": _gate(judged)}
    if gate_only or not judged.passed:
        return found
    chosen = [case for case in bench.speed if only in case.label]
    generator = torch.Generator(where).manual_seed(seed)
    doubts = clock.trustworthy(bench.fast, [bench.make(chosen[0], generator) for _ in range(SETS)])
    found["doubts"], found["passed"] = doubts, not doubts
    for line in doubts:
        print(f"  the clock cannot be trusted: {line}")
    if doubts:
        return found
    before, ceiling = device.state(), device.ceilings(seed)
    print(f"  ceilings: matmul {ceiling.flops / 1e12:.0f} TFLOP/s, copy {ceiling.bytes / 1e12:.2f} TB/s; {before}")
    rows = [_time(bench, case, generator, ceiling) for case in chosen]
    return found | {
        "ceilings": {"flops": ceiling.flops, "bytes": ceiling.bytes}, "rows": rows, "state": [before, device.state()]
    }  # fmt: skip


def _gate(judged: Gate) -> dict[str, Any]:
    closest = max(judged.judged, key=lambda one: one.fast / one.budget if one.budget else 0.0)
    return {
        "outputs": len(judged.judged), "failures": judged.failures, "refused": judged.refused,
        "closest": {"case": closest.case, "output": closest.output, "error": closest.fast, "budget": closest.budget},
    }  # fmt: skip


def _time(bench: Bench, case: Case, generator: torch.Generator, ceiling: device.Ceilings) -> dict[str, Any]:
    """One line: TFLOP/s of the fast version, of each baseline, and the ratio of their times with its interval."""
    inputs = [bench.make(case, generator) for _ in range(SETS)]
    contenders, absent = {"fast": bench.fast}, {}
    for name, baseline in bench.baselines.items():
        try:
            baseline(inputs[0])
            contenders[name] = baseline
        except (Unsupported, RuntimeError) as error:  # RuntimeError: SDPA has no such kernel for this case
            absent[name] = str(error).split("\n")[0]
    timed, cost = clock.time_all(contenders, inputs), bench.cost(case)
    row: dict[str, Any] = {"case": case.label, "flops": cost.flops, "bytes": cost.bytes, "absent": absent, "times": {}}
    line = f"  {case.label}:"
    for name, one in timed.items():
        rate = cost.flops / one.median * 1e3
        row["times"][name] = {"median": one.median, "low": one.spread[0], "high": one.spread[1], "rate": rate}
        line += f" {name} {rate / 1e12:.0f}"
        if name != "fast":
            against = ratio(one, timed["fast"])
            row["times"][name]["ratio"] = [against.median, against.low, against.high]
            line += f" ({against.median:.2f}x [{against.low:.2f}, {against.high:.2f}])"
    row["of ceiling"] = row["times"]["fast"]["rate"] / ceiling.flops
    print(f"{line} TFLOP/s, {row['of ceiling']:.0%} of matmul", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
