"""How a measurement differs from the one before it. It is said, and judged by nobody: clocks and drivers differ too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import records
from benchmarks.records import Record


def changes(path: Path, new: Record) -> list[str]:
    """Lines on the kernel's times against those of the record that is about to be replaced, if there is one."""
    if not path.is_file():
        return []
    try:
        old = records.load(path)
    except records.RecordError as error:
        return [f"replaces what could not be read: {error}"]
    before = {row.case: row for row in old.rows}
    pairs = {row.case: row.timed("fast").median / before[row.case].timed("fast").median
             for row in new.rows if row.case in before}  # fmt: skip
    if not pairs:
        return [f"no case in common with the record of {old.date}"]
    middle = float(np.exp(np.mean(np.log(list(pairs.values())))))
    slowest = max(pairs, key=pairs.__getitem__)
    other = "" if old.code == new.code else ", of other code"
    return [f"time against the record of {old.date}{other}: {middle:.3f} of it in the mean of {len(pairs)} cases, "
            f"at most {pairs[slowest]:.3f} ({slowest})"]  # fmt: skip
