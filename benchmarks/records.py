"""What `python -m benchmarks` keeps: one JSON file an operation and device, with every round of every contender.

The rounds are kept so that the ratio of any two contenders can be computed later, with its interval. What is read back
is checked field by field: a damaged or foreign file is refused by name and place, never half understood.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from benchmarks.ratios import Ratio, Timed, ratio
from benchmarks.shape import misfit
from reports.files import write_whole

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"
DIGITS = 5
"""Of each round that is kept: events resolve half a microsecond."""
AGAIN = "measure again with `python -m benchmarks {name} --json FOLDER`"
NUMBER, TEXT = (int, float), str
STATE: dict[Any, Any] = {str: object}
TIMES = {"median": NUMBER, "low": NUMBER, "high": NUMBER, "rate": NUMBER, "rounds": [NUMBER]}
SHAPE: dict[Any, Any] = {
    "schema": int, "name": TEXT, "started": TEXT, "axis": TEXT, "only": TEXT, "code": TEXT,
    "environment": {"device": TEXT, "packages": {str: TEXT}, "commit": (TEXT, NoneType), "dirty": (bool, NoneType),
                    "python": TEXT, "platform": TEXT, "processor": TEXT, "suite_seed": int, "profile": TEXT,
                    "scale": TEXT, str: object},
    "gate": {"passed": bool, "outputs": int, "failures": [TEXT], "refused": {str: int},
             "closest": ({"case": TEXT, "output": TEXT, "error": (*NUMBER, NoneType), "budget": NUMBER}, NoneType)},
    "doubts": [TEXT],
    "ceilings": ({"flops": NUMBER, "bytes": NUMBER}, NoneType),
    "state": ({"before": STATE, "after": STATE}, NoneType),
    "rows": [{"case": TEXT, "fields": {str: object}, "flops": NUMBER, "bytes": NUMBER, "executed": (*NUMBER, NoneType),
              "absent": {str: TEXT}, "times": {str: TIMES}}],
}  # fmt: skip


class RecordError(ValueError):
    """A record cannot be used; the message says why and what to do."""


class Absent(LookupError):
    """A record has no such case or contender: what needs it is not run."""


@dataclass(frozen=True)
class Row:
    """One case: its fields, its cost, and the rounds of every contender (`absent` says why one has none).

    `executed` is how many of the operations a kernel does that leaves some out.
    """

    case: str
    fields: Mapping[str, Any]
    flops: float
    bytes: float
    times: Mapping[str, Timed]
    absent: Mapping[str, str] = field(default_factory=dict)
    executed: float | None = None

    def timed(self, contender: str) -> Timed:
        """Its rounds.

        Raises:
            Absent: it was not timed; the message says why.
        """
        if contender in self.times:
            return self.times[contender]
        why = self.absent.get(contender, f"the contenders are {', '.join(self.times)}")
        raise Absent(f"needs a time of '{contender}' at {self.case}: {why}")

    def rate(self, contender: str) -> float:
        """FLOP/s, by the operation's own definition of cost."""
        return self.flops / self.timed(contender).median * 1e3


@dataclass(frozen=True)
class Record:
    """What was measured of one operation on one device. Without a green gate and a sound clock there are no rows."""

    name: str
    started: str
    environment: Mapping[str, Any]
    gate: Mapping[str, Any]
    code: str = ""
    axis: str = "queries"
    only: str = ""
    doubts: tuple[str, ...] = ()
    ceilings: Mapping[str, float] | None = None
    state: Mapping[str, Mapping[str, Any]] | None = None
    rows: tuple[Row, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.gate["passed"]) and not self.doubts

    @property
    def device(self) -> str:
        return str(self.environment["device"])

    @property
    def date(self) -> str:
        return self.started[:10]

    def row(self, case: str) -> Row:
        """The case of this label.

        Raises:
            Absent: there is none; the message says which there are.
        """
        for row in self.rows:
            if row.case == case:
                return row
        raise Absent(f"{self.name} has no timed case '{case}'; it has: {'; '.join(row.case for row in self.rows)}")

    def ratio(self, case: str, slow: str, fast: str) -> Ratio:
        """How many times the time of `fast` the contender `slow` takes in a case, with its 99 % interval."""
        row = self.row(case)
        return ratio(row.timed(slow), row.timed(fast))

    def select(self, **fields: Any) -> list[Row]:
        """Cases whose fields have these values, ordered by length.

        Raises:
            Absent: there are none.
        """
        found = [row for row in self.rows if all(row.fields.get(name) == value for name, value in fields.items())]
        if not found:
            wanted = ", ".join(f"{name}={value}" for name, value in fields.items())
            raise Absent(f"{self.name} has no timed case with {wanted}")
        return sorted(found, key=self.length)

    def length(self, row: Row) -> float:
        """A case's place on the axis of plots.

        Raises:
            RecordError: the axis is no field of the case.
        """
        if self.axis not in row.fields:
            raise RecordError(f"{self.name}: no field '{self.axis}' in '{row.case}': set BENCH.axis to one it has")
        return float(row.fields[self.axis])

    def roof(self, row: Row) -> float:
        """FLOP/s that a case could reach: the matrix product's, or what the copy's bandwidth allows if that is less."""
        assert self.ceilings is not None
        return min(self.ceilings["flops"], self.ceilings["bytes"] * row.flops / row.bytes)

    def series(self) -> dict[str, list[Row]]:
        """Cases of one setting, such as "width=64 causal", ordered by length."""
        names = self._settings()
        found: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=self.length):
            found.setdefault(shown({name: row.fields[name] for name in names}), []).append(row)
        return found

    def _settings(self) -> list[str]:
        """Fields that tell settings apart: those not determined by the axis and the fields chosen before."""
        chosen: list[str] = []
        for name in self.rows[0].fields if self.rows else ():
            known = {(self.length(row), *(row.fields[one] for one in chosen)) for row in self.rows}
            finer = {(self.length(row), *(row.fields[one] for one in [*chosen, name])) for row in self.rows}
            if name != self.axis and len(finer) > len(known):
                chosen.append(name)
        return chosen


def shown(fields: Mapping[str, Any]) -> str:
    """Fields as name=value, those that are off left out, as in a case's label."""
    return " ".join(
        name if value is True else f"{name}={value}" for name, value in fields.items() if value not in (False, None)
    )


# -- files -------------------------------------------------------------------------------------------------------------


def slug(device: str) -> str:
    """`NVIDIA H200` as `nvidia-h200`: the folder of a device's records."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in device.lower()).split())


def path_of(folder: Path, device: str, name: str) -> Path:
    return folder / slug(device) / f"{name}.json"


def save(record: Record, path: Path) -> None:
    """Write a record whole, a case a line, so that two can be compared line by line."""
    given = to_json(record)
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in given.pop("rows"))
    head = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in given.items())
    write_whole(path, f'{{\n{head},\n"rows": [\n{rows}\n]\n}}\n')


def to_json(record: Record) -> dict[str, Any]:
    names = ("name", "started", "axis", "only", "code", "environment", "gate", "doubts", "ceilings", "state")
    return {"schema": SCHEMA, **{name: getattr(record, name) for name in names}} | {
        "rows": [
            {"case": row.case, "fields": row.fields, "flops": row.flops, "bytes": row.bytes,
             "executed": row.executed, "absent": row.absent,
             "times": {name: _times(row, name) for name in row.times}}
            for row in record.rows
        ],
    }  # fmt: skip


def _times(row: Row, contender: str) -> dict[str, Any]:
    timed = Timed(np.array([rounded(one) for one in row.times[contender].rounds]))
    low, high = timed.spread
    numbers = {"median": timed.median, "low": low, "high": high, "rate": row.flops / timed.median * 1e3}
    return {name: rounded(one) for name, one in numbers.items()} | {"rounds": timed.rounds.tolist()}


def rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def load(path: Path) -> Record:
    """Read a record and check it.

    Raises:
        RecordError: it is missing, no JSON, of a newer schema, of another shape, or its numbers contradict one another.
    """
    again = AGAIN.format(name=path.stem)
    try:
        given = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; {again}") from error
    except ValueError as error:
        raise RecordError(f"{path} is no JSON ({error}); restore it from git, or {again}") from error
    version = given.get("schema") if isinstance(given, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise RecordError(f"{path} has schema {version}, this Attest reads up to {SCHEMA}: update Attest")
    wrong = misfit(given, SHAPE) or _contradiction(given)
    if wrong:
        raise RecordError(f"{path} is no record of a benchmark: {wrong}; restore it from git, or {again}")
    rows = [
        Row(row["case"], row["fields"], row["flops"], row["bytes"],
            {name: Timed(np.array(one["rounds"], float)) for name, one in row["times"].items()}, row["absent"],
            row["executed"])
        for row in given.pop("rows")
    ]  # fmt: skip
    del given["schema"]
    return Record(**given | {"rows": tuple(rows), "doubts": tuple(given["doubts"])})


def _contradiction(given: dict[str, Any]) -> str | None:
    """What cannot be: rows without a green gate, rounds that are no times or do not give the median beside them."""
    if given["rows"] and (not given["gate"]["passed"] or given["doubts"] or given["ceilings"] is None):
        return "it has times without a green gate, a sound clock and ceilings"
    for row in given["rows"]:
        for name, one in row["times"].items():
            rounds = one["rounds"]
            if not rounds or not all(0 < time < math.inf for time in rounds):
                return f"rows/{row['case']}/times/{name}: rounds must be positive times"
            if not math.isclose(one["median"], float(np.median(rounds)), rel_tol=10.0 ** (1 - DIGITS)):
                return f"rows/{row['case']}/times/{name}: the median is not that of the rounds"
        if len({len(one["rounds"]) for one in row["times"].values()}) > 1:
            return f"rows/{row['case']}: contenders with different numbers of rounds"
    return None


def kept(folder: Path = FOLDER) -> Iterator[tuple[Path, Record]]:
    """All records below a folder of devices, by path."""
    for path in sorted(folder.glob("*/*.json")):
        yield path, load(path)


def to_judge_by(folder: Path, device: str | None, name: str, code: str) -> Record:
    """The record of an operation that this machine may judge a claim by.

    Args:
        folder: of `--json`; without a GPU also that of one device in it.
        device: this machine's GPU, whose record it must be; None where there is none, and any machine's may be judged.

    Raises:
        RecordError: there is no such record, or it was measured with other code.
    """
    path = _only(folder, name) if device is None else path_of(folder, device, name)
    if not path.is_file():
        others = sorted(one.parent.name for one in folder.glob(f"*/{name}.json"))
        of = f"only of {', '.join(others)}" if others else "of no device"
        raise RecordError(f"{folder} has a record of {name} {of}; this machine's GPU is {device}: "
                          f"{AGAIN.format(name=name)}, or leave --benchmarks out")  # fmt: skip
    record = load(path)
    if (record.device, record.name) != (device or record.device, name):
        raise RecordError(f"{path} is of {record.name} on {record.device}, not {name} on this machine's {device}: "
                          f"{AGAIN.format(name=name)}")  # fmt: skip
    if record.code != code:
        raise RecordError(f"{path} was measured with other code than this: {AGAIN.format(name=name)}")
    return record


def _only(folder: Path, name: str) -> Path:
    """The record of an operation in a device's folder, or in a folder of devices if only one has it."""
    own = folder / f"{name}.json"
    found = [own] if own.is_file() else sorted(folder.glob(f"*/{name}.json"))
    if len(found) != 1:
        of = f"several: give one of {', '.join(str(one.parent) for one in found)}" if found else "none"
        raise RecordError(f"this machine has no GPU, and of the records of {name} in {folder} there are {of}")
    return found[0]
