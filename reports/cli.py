"""The command line: `attest run | nightly | checkpoint | list | show | render | diff | merge | keep | accept`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports import catalogue, measured, record, results
from reports.claim import LEVELS, Claim

RESULTS = "reports/out/results.json"
CHECKPOINT = ("checkpoint", "text", "questions", "device", "dtype", "out")
"""What `attest checkpoint` passes on to pytest by the same name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 when all is well, 1 when the answer is bad news, 2 when the question was wrong."""
    parsed, rest = _parser().parse_known_args(arguments)
    if rest and parsed.command not in (run, checkpoint):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    parsed.rest = rest
    try:
        status: int = parsed.command(parsed)
    except BrokenPipeError:  # the reader of our output closed it, as `| head` does
        return 0
    except (
        catalogue.CatalogueError,
        measured.MeasuredError,
        record.RecordError,
        results.ResultsError,
        OSError,
    ) as error:
        print(f"attest: {error}", file=sys.stderr)
        return 2
    return status


def run(options: argparse.Namespace) -> int:
    """Run pytest on the claims. What this parser does not know goes to pytest, after our own defaults."""
    import pytest

    root = catalogue.find_root(Path.cwd())
    chosen = [f"--{name}={key}" for name in ("paper", "claim", "level") for key in getattr(options, name)]
    chosen += [f"--benchmarks={options.benchmarks}"] if options.benchmarks else []
    folder = str(root / catalogue.CLAIMS_FOLDER)
    return int(pytest.main([folder, f"--rootdir={root}", "-n", options.workers, *chosen, *options.rest]))


def nightly(options: argparse.Namespace) -> int:
    from reports.nightly import nightly as night

    return night(catalogue.find_root(Path.cwd()), options.out)


def checkpoint(options: argparse.Namespace) -> int:
    """Run pytest on the claims about pretrained models, in one process, as each would load the model anew."""
    import pytest

    root = catalogue.find_root(Path.cwd())
    given = [f"--{name}={value}" for name in CHECKPOINT if (value := getattr(options, name)) is not None]
    given += [f"--claim={key}" for key in options.claims]
    files = sorted((root / catalogue.CLAIMS_FOLDER).rglob("test_*.py"))
    speaking = [str(file) for file in files if "checkpoint" in file.read_text("utf-8")]  # the others need no reading
    status = pytest.main([*speaking, f"--rootdir={root}", "-n", "0", *given, *options.rest])
    return 2 if status == pytest.ExitCode.USAGE_ERROR else int(status)


def list_claims(options: argparse.Namespace) -> int:
    root = catalogue.find_root(Path.cwd())
    recorded = record.load(root / record.RECORD)
    rows = [_row(claim, recorded.get(claim.key)) for claim in catalogue.load(root)]
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    table = _table("claim", "recorded verdict", "level", "statement")
    for row in rows:
        table.add_row(row["key"], row["verdict"] or "-", row["level"] or "-", row["says"])
    _print(table)
    return 0


def show(options: argparse.Namespace) -> int:
    root = catalogue.find_root(Path.cwd())
    claims = catalogue.load(root)
    found = [claim for claim in claims if options.claim in (claim.key, claim.slug)]
    if not found:
        keys = [key for claim in claims for key in (claim.key, claim.slug)]
        raise catalogue.CatalogueError(catalogue.unknown("claim", options.claim, keys))
    recorded = record.load(root / record.RECORD)
    shown = [
        results.describe(claim, root) | {"recorded": recorded.get(claim.key), "last": _last(root, claim)}
        for claim in found
    ]
    if options.json:
        print(json.dumps(shown, indent=1, ensure_ascii=False))
        return 0
    for claim in shown:
        _print(_claim_text(claim))
    return 0


def render(options: argparse.Namespace) -> int:
    from reports.bibliography import papers
    from reports.page import write

    loaded = results.load(options.results)
    root = catalogue.find_root(Path.cwd())
    if any(paper["title"] == paper["key"] for paper in loaded["papers"]):  # written where pybtex was missing
        loaded["papers"] = papers(root, [paper["key"] for paper in loaded["papers"]])
    target = options.output or Path(options.results).with_name("index.html")
    try:
        write(loaded, target)
    except ValueError as error:  # a formula that cannot be set, or a figure that holds more than drawing
        raise results.ResultsError(f"{options.results}: {error}") from error
    print(target)
    return 0


def diff(options: argparse.Namespace) -> int:
    changed = results.differences(results.load(options.old), results.load(options.new))
    if options.json:
        print(json.dumps(changed, indent=1))
    elif changed:
        table = _table("claim", "old", "new")
        for row in changed:
            table.add_row(row["claim"], *(_side(row[side]) for side in ("old", "new")))
        _print(table)
    else:
        print("no verdict differs")
    return 1 if changed else 0


def merge(options: argparse.Namespace) -> int:
    from reports.reporter import counts

    merged = results.merge([results.load(shard) for shard in options.shards], catalogue.find_root(Path.cwd()))
    results.save(Path(options.output), merged)
    for problem in merged["problems"]:
        print(f"PROBLEM {problem}", file=sys.stderr)
    print(f"{counts(merged)}; written to {options.output}")
    return 1 if merged["problems"] else 0


def keep(options: argparse.Namespace) -> int:
    for path in measured.keep(results.load(options.results), catalogue.find_root(Path.cwd())):
        print(f"{path}: review and commit it")
    return 0


def accept(options: argparse.Namespace) -> int:
    root = catalogue.find_root(Path.cwd())
    path = root / record.RECORD
    before = record.load(path)
    after = record.accept(before, results.load(options.results or root / RESULTS))
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    record.save(path, after)
    for key in changed:
        print(f"{key}: {_entry(before.get(key))} -> {_entry(after.get(key))}")
    print(f"{len(changed)} of {len(after)} entries changed in {path}; review and commit it")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("attest", description="Check what papers about attention claim.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function)
        return added

    one = command("run", run, "check claims and write the page; further options go to pytest")
    for option, text in (("paper", "only this paper"), ("claim", "only this claim")):
        one.add_argument(f"--{option}", action="append", default=[], metavar="KEY", help=text)
    one.add_argument("--level", action="append", default=[], choices=LEVELS, help="only checks at this level")
    one.add_argument(
        "--benchmarks",
        metavar="DIR",
        help="times that `python -m benchmarks --json DIR` kept, of this GPU or, without one, of any",
    )
    one.add_argument("-n", dest="workers", default="auto", help="processes side by side (default: one per core)")
    one = command("nightly", nightly, "gates, times, claims at full scale and what changed: all that needs a GPU")
    one.add_argument(
        "--out", default="reports/out/nightly", metavar="DIR", help="of pages and summary.md (default: %(default)s)"
    )
    one = command("checkpoint", checkpoint, "what is claimed of pretrained models, put to a model of yours")
    one.add_argument("checkpoint", metavar="DIR", help="a Hugging Face directory with safetensors and a tokenizer")
    one.add_argument("--claims", nargs="+", action="extend", default=[], metavar="KEY", help="only these claims")
    one.add_argument("--text", metavar="FILE", help="text for it to read (default: Python's own help texts)")
    one.add_argument("--questions", metavar="FILE", help="JSON lines with the fields question, choices, answer")
    one.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    one.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of its weights (default float32)")
    one.add_argument("--out", metavar="FOLDER", help=f"of the page (default: {Path(RESULTS).parent}/NAME OF DIR)")
    one = command("list", list_claims, "all claims with their recorded verdicts")
    one.add_argument("--json", action="store_true", help="for scripts")
    one = command("show", show, "one claim: statement, checks, controls, record, last outcome")
    one.add_argument("claim", help="paper/slug, or slug")
    one.add_argument("--json", action="store_true", help="for scripts")
    one = command("render", render, "the page of a results file")
    one.add_argument("results", metavar="RESULTS.json")
    one.add_argument("-o", "--output", help="default: index.html beside the results")
    one = command("diff", diff, "claims whose verdicts differ between two results files; exit status 1 if any does")
    one.add_argument("old", metavar="OLD.json")
    one.add_argument("new", metavar="NEW.json")
    one.add_argument("--json", action="store_true", help="for scripts")
    one = command("merge", merge, "one results file from several, such as a CPU run and a GPU run of the same commit")
    one.add_argument("shards", nargs="+", metavar="SHARD.json")
    one.add_argument("-o", "--output", required=True, metavar="OUT.json")
    one = command("keep", keep, f"keep what a run measured at full scale or on a GPU, in {measured.FOLDER}")
    one.add_argument("results", metavar="RESULTS.json")
    one = command("accept", accept, f"rewrite the record {record.RECORD} from a run")
    one.add_argument("results", nargs="?", metavar="RESULTS.json", help=f"default: {RESULTS}")
    return parser


def _row(claim: Claim, recorded: dict[str, Any] | None) -> dict[str, Any]:
    accepted = recorded or {"verdict": None, "level": None}
    return {"key": claim.key, "says": claim.says} | {key: accepted[key] for key in ("verdict", "level")}


def _last(root: Path, claim: Claim) -> dict[str, Any] | None:
    """What the last run in this checkout found for the claim."""
    if not (root / RESULTS).exists():
        return None
    run = results.load(root / RESULTS)
    found = next((one for one in run["claims"] if one["key"] == claim.key), None)
    return found and {"started": run["started"], **{key: found[key] for key in ("verdict", "level", "why")}}


def _claim_text(claim: dict[str, Any]) -> str:
    """A claim as plain text with rich markup; what comes from elsewhere is escaped."""
    from rich.markup import escape

    lines = [f"[bold]{escape(claim['key'])}[/bold]  ({escape(claim['where'])})", escape(claim["says"])]
    lines.append(f"  formula   {escape(claim['formula'])}")
    if claim["repair"]:
        lines.append(f"  repair    {escape(claim['repair'])}")
    lines.append(f"  gap       {escape(claim['gap'])}")
    lines.append(f"  recorded  {_entry(claim['recorded'])}")
    last = claim["last"]
    lines.append(f"  last run  {_entry(last)}{', ' + last['started'] + ': ' + escape(last['why']) if last else ''}")
    for check in claim["checks"]:
        scope = f", {escape(check['scope'])}" if check["scope"] else ""
        lines.append(f"  {check['kind']} ({check['level']}{scope}) {claim['file']}:{check['line']} {check['name']}")
        lines.append(f"      {escape(check['says'])}")
        lines += [f"      control: {escape(name)}" for name in check["controls"]]
    return "\n".join(lines) + "\n"


def _entry(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else _side([entry["verdict"], entry["level"]])


def _side(side: list[str | None] | None) -> str:
    if side is None:
        return "absent"
    verdict, level = side
    return f"{verdict or 'no verdict'}{f' ({level})' if level else ''}"


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(what: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=isinstance(what, str)).print(what)
