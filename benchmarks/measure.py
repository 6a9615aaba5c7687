"""From a bench to its record: the gate, the clock's own test, ceilings, then every contender in every timed case."""

from __future__ import annotations

import ast
import hashlib
import importlib
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from benchmarks import clock, device
from benchmarks.gate import Gate, gate
from benchmarks.operation import Bench, Case, Unsupported
from benchmarks.ratios import ratio
from benchmarks.records import Record, Row, load, save
from empirical.sources import modules_behind
from reports.environment import describe

FOLDER = Path(__file__).parent
SETS = 3
"""Different inputs that a contender meets in turn."""


def names() -> list[str]:
    """Operations: every module of this folder that has a BENCH. None of them is imported."""
    return sorted(
        path.stem for path in FOLDER.glob("*.py") if re.search(r"^BENCH\b.*=", path.read_text("utf-8"), re.MULTILINE)
    )


def bench_of(name: str) -> Bench:
    return importlib.import_module(f"benchmarks.{name}").BENCH


def code_of(name: str) -> str:
    """A hash of all our code behind a bench and its clock, but for docstrings, in which times are written down.

    Of lines as they stand, without empty ones and comments: a syntax tree differs between versions of Python.
    """
    digest = hashlib.sha256()
    files = (FOLDER / f"{one}.py" for one in (name, "clock", "gate"))
    for path in sorted(set().union(*(modules_behind(FOLDER.parent, file) for file in files))):
        text = path.read_text("utf-8")
        left_out = {
            line
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
            and ast.get_docstring(node, False) is not None
            for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
        }
        lines = [line for number, line in enumerate(text.split("\n"), 1) if number not in left_out]
        code = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        digest.update("\n".join([path.name, *code]).encode())
    return digest.hexdigest()[:16]


def measure(
    bench: Bench, where: torch.device, *, seed: int = 0, rounds: int = clock.ROUNDS, only: str = "", timed: bool = True
) -> Record:
    """Gate and, where it is green and the clock sound, times of one bench; printed as they come.

    Args:
        where: the device; only a GPU is timed.
        only: a part of the labels of the cases to time.
        timed: False stops after the gate.

    Raises:
        ValueError: no timed case's label contains `only`.
    """
    chosen = [case for case in bench.speed if only in case.label]
    if timed and not chosen:
        raise ValueError(f"{bench.name}: no timed case's label contains {only!r}; first of them: "
                         f"{'; '.join(case.label for case in bench.speed[:3])}")  # fmt: skip
    started = datetime.now(UTC).isoformat(timespec="seconds")
    judged = gate(bench, device=where, seed=seed)
    print(f"{bench.name}: gate {'passed' if judged.passed else 'FAILED'}: {len(judged.judged)} outputs, "
          f"{len(judged.refused)} controls")  # fmt: skip
    for line in judged.failures:
        print(f"  {line}")
    found: dict[str, Any] = {
        "name": bench.name, "started": started, "axis": bench.axis, "only": only, "gate": summary(judged),
        "environment": environment(where, seed), "code": code_of(bench.name) if bench.name in names() else "",
    }  # fmt: skip
    if not timed or not judged.passed:
        return Record(**found)
    generator = torch.Generator(where).manual_seed(seed)
    doubts = clock.trustworthy(bench.fast, [bench.make(chosen[0], generator) for _ in range(SETS)])
    for line in doubts:
        print(f"  the clock cannot be trusted: {line}")
    if doubts:
        return Record(**found, doubts=tuple(doubts))
    return _time_all(bench, chosen, generator, rounds, found, seed)


def once(name: str, folder: Path, where: torch.device, seed: int) -> Record:
    """The record in a folder that several processes share; the first of them measures it."""
    path = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            save(measure(bench_of(name), where, seed=seed), path)
    return load(path)


def _time_all(
    bench: Bench, cases: Sequence[Case], generator: torch.Generator, rounds: int, found: dict[str, Any], seed: int
) -> Record:
    before, ceiling = device.state(), device.ceilings(seed)
    print(f"  ceilings: matmul {ceiling.flops / 1e12:.0f} TFLOP/s, copy {ceiling.bytes / 1e12:.2f} TB/s; "
          f"{device.in_words(before)}")  # fmt: skip
    ceilings = {"flops": ceiling.flops, "bytes": ceiling.bytes}
    rows = []
    for case in cases:
        rows.append(time_case(bench, case, generator, rounds))
        print(line_of(rows[-1], Record(**found, ceilings=ceilings)), flush=True)
    after = device.state()
    print(f"  after: {device.in_words(after)}")
    return Record(**found, ceilings=ceilings, state={"before": before, "after": after}, rows=tuple(rows))


def time_case(bench: Bench, case: Case, generator: torch.Generator, rounds: int) -> Row:
    """The kernel and every baseline that has this case, by turns."""
    inputs = [bench.make(case, generator) for _ in range(SETS)]
    contenders, absent = {"fast": bench.fast}, {}
    for name, baseline in bench.baselines.items():
        try:
            baseline(inputs[0])
            contenders[name] = baseline
        except (Unsupported, RuntimeError) as error:  # RuntimeError: SDPA has no such kernel for this case
            absent[name] = str(error).split("\n")[0][:200]
    cost, executed = bench.cost(case), bench.executed and bench.executed(case, inputs[0])
    shape = {field.name: plainly(getattr(case, field.name)) for field in fields(case)}
    timed = clock.time_all(contenders, inputs, rounds)
    return Row(case.label, shape, cost.flops, cost.bytes, timed, absent, executed)


def line_of(row: Row, record: Record) -> str:
    """TFLOP/s of the kernel and of each baseline, the ratio of their times, and how much of the ceiling it is."""
    line = f"  {row.case}:"
    for name, one in row.times.items():
        line += f" {name} {row.rate(name) / 1e12:.{0 if row.rate(name) > 1e13 else 2}f}"
        if name != "fast":
            against = ratio(one, row.times["fast"])
            line += f" ({against.median:.2f}x [{against.low:.2f}, {against.high:.2f}])"
    line += f" TFLOP/s, {row.rate('fast') / record.roof(row):.0%} of the ceiling"
    return line if row.executed is None else f"{line}, {row.executed / row.flops:.1%} of the work executed"


def summary(judged: Gate) -> dict[str, Any]:
    """The gate's outcome as it is kept: the closest call of all outputs, and what failed."""
    closest = max(judged.judged, key=lambda one: one.fast / one.budget if one.budget else 0.0, default=None)
    return {
        "passed": judged.passed, "outputs": len(judged.judged), "failures": judged.failures,
        "refused": judged.refused,
        "closest": closest and {
            "case": closest.case, "output": closest.output, "budget": closest.budget,
            "error": closest.fast if math.isfinite(closest.fast) else None,
        },
    }  # fmt: skip


def environment(where: torch.device, seed: int) -> dict[str, Any]:
    """Versions, device, commit, and what decides which kernels the baselines are."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    driver = device.state().get("driver") if where.type == "cuda" else None
    return describe(FOLDER.parent, suite_seed=seed, profile="bench", device=name) | {
        "driver": driver, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip


def plainly(value: object) -> object:
    """A field of a case as JSON."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)
