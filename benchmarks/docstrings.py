"""`python -m benchmarks.docstrings` writes what was measured of a kernel into its docstring, from benchmarks/results.

The lines between the two marks at the docstring's end are written by this module alone; a kernel without a record has
none. `--check` writes nothing and exits with 1 where a docstring is not what the records say.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks import records
from benchmarks.ratios import ratio
from benchmarks.records import Record, Row
from reports.files import write_whole

KERNELS = Path(__file__).parent / "kernels"
BEGIN, END = "-- measured; written by `python -m benchmarks.docstrings` --", "-- end of what was measured --"
WIDTH = 119


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 when all docstrings are up to date or were written, 1 when `--check` found a stale one."""
    parser = argparse.ArgumentParser("python -m benchmarks.docstrings", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    stale = find_stale()
    for path, text in stale.items():
        print(
            f"{path}: {'is not what benchmarks/results says: run this without --check' if options.check else 'written'}"
        )
        if not options.check:
            write_whole(path, text)
    return 1 if stale and options.check else 0


def find_stale(kernels: Path = KERNELS, results: Path = records.FOLDER) -> dict[Path, str]:
    """Files of kernels whose docstring differs from what their records say -> the text that they should have."""
    found: dict[str, list[Record]] = {}
    for _, record in records.kept(results):
        if record.rows:
            found.setdefault(record.name, []).append(record)
    wanted = {
        path: up_to_date(path.read_text("utf-8"), found.get(path.stem, [])) for path in sorted(kernels.glob("*.py"))
    }
    return {path: text for path, text in wanted.items() if text != path.read_text("utf-8")}


def up_to_date(source: str, measured: Sequence[Record]) -> str:
    """A module's text with its docstring's measured lines as the records give them."""
    first = ast.parse(source).body[:1]
    if not first or not isinstance(first[0], ast.Expr) or ast.get_docstring(ast.parse(source)) is None:
        return source
    end = first[0].end_lineno
    assert end is not None
    lines = source.split("\n")
    head, rest = "\n".join(lines[:end]), "\n".join(lines[end:])
    if BEGIN in head:
        head = head[: head.index(BEGIN)].rstrip() + head[head.index(END) + len(END) :]
    if measured:
        body = head.removesuffix('"""').rstrip()
        head = "\n".join([body, "", BEGIN, *(line for one in measured for line in lines_of(one)), END, '"""'])
    return f"{head}\n{rest}"


def lines_of(record: Record) -> list[str]:
    """A record in words: where it was measured, and every setting at its greatest length."""
    packages = ", ".join(f"{name} {record.environment['packages'].get(name, '?')}" for name in ("torch", "triton"))
    ceilings = record.ceilings or {}
    lines = [f"Measured: {record.device}, {record.date}, {packages}; a square matrix product reaches "
             f"{ceilings['flops'] / 1e12:.0f} TFLOP/s, a copy {ceilings['bytes'] / 1e12:.2f} TB/s."]  # fmt: skip
    for setting, rows in record.series().items():
        row = rows[-1]
        where = f"{setting} {record.axis}={row.fields[record.axis]}".strip()
        lines.append(f"Measured: {where}: {_speed(row)}, {row.rate('fast') / record.roof(row):.0%} of the ceiling; "
                     f"{_against(row)}.")  # fmt: skip
    return [
        part for line in lines for part in textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    ]


def _speed(row: Row) -> str:
    speed = f"{row.timed('fast').median:.3g} ms, {row.rate('fast') / 1e12:.3g} TFLOP/s"
    return speed if row.executed is None else f"{speed} with {row.executed / row.flops:.1%} of that work done"


def _against(row: Row) -> str:
    """Times of the baselines over the kernel's."""
    found = []
    for name, one in row.times.items():
        if name != "fast":
            times = ratio(one, row.times["fast"])
            found.append(f"{name} takes {times.median:.2f} times as long [{times.low:.2f}, {times.high:.2f}]")
    return ", ".join(found) or "no baseline has this case"


if __name__ == "__main__":
    sys.exit(main())
