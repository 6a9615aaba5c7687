"""`python -m benchmarks [NAME...]`: the gate, then, on a GPU, the clock. No number without a green gate.

`--json FOLDER` keeps what was measured, one file an operation and device; `--gate` stops after the gate; `--plot`
draws what is kept, and measures nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import clock, records
from benchmarks.changes import changes
from benchmarks.measure import bench_of, measure, names


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 when every gate is green and the clock can be trusted, 1 when not, 2 for a wrong question."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(names()))
        return 0
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        return _wrong(f"no operation {unknown[0]!r}; there are {', '.join(names())}")
    if options.gate and options.json:
        return _wrong("--gate measures nothing to keep: leave --json out")
    chosen = options.names or names()
    if options.plot:
        return plot(options.json or records.FOLDER, chosen)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cpu" and not (options.gate and os.environ.get("TRITON_INTERPRET") == "1"):
        # Without the interpreter the references would answer in place of the kernels, and pass.
        return _wrong("no GPU here; TRITON_INTERPRET=1 python -m benchmarks --gate runs the gates in an interpreter")
    failed = [name for name in chosen if not _one(name, where, options)]
    return 1 if failed else 0


def _one(name: str, where: torch.device, options: argparse.Namespace) -> bool:
    """Measure one operation; what goes wrong with it does not hide the others."""
    try:
        record = measure(
            bench_of(name), where, seed=options.seed, rounds=options.rounds, only=options.only, timed=not options.gate
        )
        if options.json:
            path = records.path_of(options.json, record.device, name)
            for line in changes(path, record):
                print(f"  {line}")
            records.save(record, path)
    except Exception:
        print(f"{name}: FAILED\n{traceback.format_exc()}", flush=True)
        return False
    return record.passed


def plot(folder: Path, chosen: Sequence[str]) -> int:
    """Draw the records of a folder, each figure beside its record."""
    from benchmarks.plots import figures
    from reports.figures import to_svg
    from reports.files import write_whole

    try:
        found = [(path, record) for path, record in records.kept(folder) if record.name in chosen and record.rows]
    except records.RecordError as error:
        return _wrong(str(error))
    for path, record in found:
        for suffix, (_, figure, _) in figures(record).items():
            target = path.with_name(f"{path.stem}-{suffix}.svg")
            write_whole(target, to_svg(figure))
            print(target)
    return 0 if found else _wrong(f"no record of {', '.join(chosen)} in {folder}: measure with --json {folder}")


def _wrong(what: str) -> int:
    print(f"benchmarks: {what}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names())}; all where none is named")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="keep each record in FOLDER/DEVICE/NAME.json")
    parser.add_argument("--gate", action="store_true", help="the gate alone, which also runs in Triton's interpreter")
    parser.add_argument("--only", default="", metavar="TEXT", help="time only cases whose label contains this")
    parser.add_argument("--rounds", type=int, default=clock.ROUNDS, help=f"of the clock (default {clock.ROUNDS})")
    parser.add_argument("--plot", action="store_true", help=f"draw what --json kept (default: {records.FOLDER})")
    parser.add_argument("--list", action="store_true", help="the operations, a line each")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
