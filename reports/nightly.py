"""`attest nightly`: all that a machine with a GPU can say, in one command, and one page of Markdown that sums it up.

A step that fails is told and the next one runs all the same. The night fails where a step does, a kernel's gate among
them, or a verdict differs from the record; a number that is slower than the last one is shown and fails nothing.
"""

from __future__ import annotations

import html
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import record, results
from reports.files import write_whole

OUT, TIMES = "reports/out/nightly", "benchmarks/results"
HOUR = 3600.0
ATTEST, BENCHMARKS = [sys.executable, "-m", "reports"], [sys.executable, "-m", "benchmarks"]
LOOK = [sys.executable, "-m", "benchmarks.device"]
"""Says what GPU this machine has; fails where it has none."""
WITHOUT = (
    "Without one, `attest run` checks all that needs none, and `TRITON_INTERPRET=1 python -m benchmarks --gate` the "
    "gates of the kernels."
)
TIMED_OUT = 124


@dataclass(frozen=True)
class Step:
    """A command, the seconds after which it is stopped, and whether its output belongs in the summary."""

    name: str
    command: list[str]
    limit: float = HOUR
    shown: bool = False


@dataclass(frozen=True)
class Done:
    """How a step ended: its exit status, what it printed, and its seconds."""

    step: Step
    status: int
    output: str
    seconds: float


Runner = Callable[[Step], tuple[int, str]]


def steps(operations: list[str], out: str) -> list[Step]:
    """The night, in order. The GPU does one thing at a time: nothing else runs while kernels are timed.

    Every kernel has processes of its own: one that waits for ever or reads foreign memory takes no other with it.
    """
    claims, full = f"{out}/claims", f"{out}/full"
    return [
        *(Step(f"gate of {name}", [*BENCHMARKS, name, "--gate"], HOUR / 3, shown=True) for name in operations),
        *(Step(f"times of {name}", [*BENCHMARKS, name, "--json", TIMES], HOUR / 2, shown=True) for name in operations),
        Step("figures of times", [*BENCHMARKS, "--plot"]),
        Step("docstrings of kernels", [*BENCHMARKS[:-1], "benchmarks.docstrings"]),
        Step("claims", [*ATTEST, "run", f"--benchmarks={TIMES}", f"--out={claims}"], 2 * HOUR),
        Step("claims at full scale",
             [*ATTEST, "run", "-n", "2", "--scale=full", "-m", "gpu or scaled", f"--out={full}"], 6 * HOUR),
        Step("keep claims", [*ATTEST, "keep", f"{claims}/results.json"]),
        Step("keep claims at full scale", [*ATTEST, "keep", f"{full}/results.json"]),
    ]  # fmt: skip


def nightly(root: Path, out: str = OUT, runner: Runner | None = None) -> int:
    """Run the night; the summary is OUT/summary.md.

    Returns:
        0 when all went well; 1 when a step failed or a verdict differs from the record; 2 where nothing could start,
        as on a machine without a GPU.
    """
    run = runner or (lambda step: in_a_process(step, root))
    status, device = run(Step("GPU", LOOK, 300.0))
    if status:
        print(f"attest: nightly needs a GPU: {device.strip()}\n{WITHOUT}", file=sys.stderr)
        return 2
    status, operations = run(Step("operations", [*BENCHMARKS, "--list"], 300.0))
    if status:
        print(f"attest: the kernels cannot be listed: {operations.strip()}", file=sys.stderr)
        return 2
    done = []
    for step in steps(operations.split(), out):
        print(f"== {step.name}: {' '.join(step.command)}", flush=True)
        began = time.monotonic()
        status, output = run(step)
        done.append(Done(step, status, output, time.monotonic() - began))
        print(f"{output}\n== {step.name}: {outcome(status)}", flush=True)
    differing, unread = differences(root / out / one / "results.json" for one in ("claims", "full"))
    write_whole(root / out / "summary.md", summary(device.strip(), done, differing, unread))
    print(f"summary: {root / out / 'summary.md'}")
    return 1 if differing or unread or any(one.status for one in done) else 0


def in_a_process(step: Step, root: Path) -> tuple[int, str]:
    """Exit status and output of a step; a kernel that waits for ever is stopped."""
    try:
        done = subprocess.run(
            step.command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=step.limit, check=False,
            text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        output = error.output.decode("utf-8", "replace") if isinstance(error.output, bytes) else error.output or ""
        return TIMED_OUT, f"{output}\nstopped after {step.limit:.0f} s"
    return done.returncode, done.stdout


def differences(files: Iterable[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Claims whose verdict is another than the recorded one, or none, or broken; and what could not be read."""
    found, unread = [], []
    for path in files:
        try:
            claims = results.load(path)["claims"]
        except results.ResultsError as error:
            unread.append(str(error))
            continue
        found += [one for one in claims if one["verdict"] in (None, "broken") or record.disagreement(one)]
    return found, unread


def summary(device: str, done: list[Done], differing: list[dict[str, Any]], unread: list[str]) -> str:
    """The night in Markdown."""
    lines = [f"# Attest nightly: {safe(device)}", "", "| step | outcome | minutes |", "| --- | --- | ---: |"]
    lines += [f"| {one.step.name} | {outcome(one.status)} | {one.seconds / 60:.1f} |" for one in done]
    lines += ["", "## Verdicts against the record", ""]
    if differing:
        lines += ["| claim | record | this run | why |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {safe(one['key'])} | {words(one['recorded'])} | {words(one)} | {safe(one['why'])} |"
            for one in differing
        ]
    else:
        lines += ["No verdict differs from the record." if not unread else "What could be read agrees with the record."]
    lines += [f"\nNot read: {safe(one)}" for one in unread]
    for one in done:
        if one.step.shown or one.status:
            text = html.escape(one.output.strip()[-20_000:])
            lines += ["", f"<details><summary>{one.step.name}</summary>", "", f"<pre>{text}</pre>", "", "</details>"]
    return "\n".join(lines) + "\n"


def outcome(status: int) -> str:
    return {0: "passed", TIMED_OUT: "**stopped: out of time**"}.get(status, f"**failed** ({status})")


def words(entry: dict[str, Any] | None) -> str:
    """A verdict and its level."""
    if entry is None:
        return "-"
    level = f" ({entry['level']})" if entry["level"] else ""
    return f"{entry['verdict'] or 'no verdict'}{level}"


def safe(text: str) -> str:
    """Text for a cell of a table: what would be markup or end the cell is written out."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
