"""Figures of a record: speed against length under its ceiling, and the time of every baseline over the kernel's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.ratios import ratio
from benchmarks.records import Record, RecordError, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS, WIDTH, HEIGHT = 4, 3.1, 2.5
"""Panels side by side, and their size in inches."""
FAR = 4
"""Ratios whose largest is further than this from the smallest are drawn on a logarithmic axis."""
MARKS = "osD^vPX*<>"
"""Contenders differ by mark and by colour."""


def figures(record: Record) -> dict[str, tuple[str, Figure, str]]:
    """Two figures: file suffix -> title, figure, caption. One panel for each setting (width, mask, direction ...).

    Raises:
        RecordError: the record has no times, or its axis is no field of its cases.
    """
    if not record.rows:
        why = "; ".join([*record.gate["failures"], *record.doubts]) or "it was not timed"
        raise RecordError(f"{record.name} on {record.device} has no times to draw: {why}")
    where = f"{record.device}, {record.date}; median of {len(record.rows[0].timed('fast').rounds)} rounds"
    return {
        "speed": (
            f"{record.name}: speed", _panels(record, _speed),
            f"TFLOP/s against {record.axis}, by the operation's own count of its work; dashed: what a square matrix "
            f"product reaches, or a copy where that is less. {where}.",
        ),
        "ratio": (
            f"{record.name}: against the baselines", _panels(record, _ratios),
            f"Time of each baseline over the kernel's, against {record.axis}; above 1 the kernel is faster. Bars: 99 % "
            f"interval of the median over rounds. {where}.",
        ),
    }  # fmt: skip


def _panels(record: Record, draw: Callable[[Axes, Record, list[Row], dict[str, Any]], None]) -> Figure:
    from matplotlib.figure import Figure

    series = record.series()
    columns = min(COLUMNS, len(series))
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    looks = _looks(record)
    for panel, (setting, cases) in zip(axes.flat, series.items(), strict=False):
        draw(panel, record, cases, looks)
        panel.set_title(setting or record.name, fontsize=8)
        panel.set_xscale("log", base=2)
        lengths = [record.length(row) for row in cases]
        panel.set_xticks(lengths, [_short(one) for one in lengths], fontsize=7)
        panel.tick_params(axis="y", labelsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(series) :]:
        panel.set_axis_off()
    shown = {label: line for panel in axes.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(4, len(shown)), fontsize=7)
    return figure


def _looks(record: Record) -> dict[str, Any]:
    names = list(dict.fromkeys(name for row in record.rows for name in row.times))
    return {
        name: {"color": f"C{at % 10}", "marker": MARKS[at % len(MARKS)], "markersize": 4, "linewidth": 1}
        for at, name in enumerate(names)
    }


def _speed(panel: Axes, record: Record, cases: list[Row], looks: dict[str, Any]) -> None:
    for name, look in looks.items():
        timed = [row for row in cases if name in row.times]
        if timed:
            panel.plot(
                [record.length(row) for row in timed], [row.rate(name) / 1e12 for row in timed], label=name, **look
            )
    roof = [record.roof(row) / 1e12 for row in cases]
    panel.plot([record.length(row) for row in cases], roof, "k--", linewidth=1, label="ceiling")
    panel.set_ylim(bottom=0)
    panel.set_ylabel("TFLOP/s", fontsize=7)


def _ratios(panel: Axes, record: Record, cases: list[Row], looks: dict[str, Any]) -> None:
    medians = [1.0]
    for name, look in looks.items():
        timed = [row for row in cases if name in row.times and name != "fast"]
        if not timed:
            continue
        against = [ratio(row.timed(name), row.timed("fast")) for row in timed]
        medians += [one.median for one in against]
        bars = [[one.median - one.low for one in against], [one.high - one.median for one in against]]
        panel.errorbar(
            [record.length(row) for row in timed], [one.median for one in against], yerr=bars, label=name, **look
        )
    panel.axhline(1, color="k", linestyle="--", linewidth=1)
    if max(medians) > FAR * min(medians):
        panel.set_yscale("log", base=2)
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_ylabel("time over the kernel's", fontsize=7)


def _short(length: float) -> str:
    return f"{length / 1024:g}k" if length >= 1024 and length % 1024 == 0 else f"{length:g}"
