"""How many mutants of the theory modules do the claims kill?

    python -m benchmarks.mutants theory/language/attentiveness.py               180 mutants, two minutes on two cores
    python -m benchmarks.mutants theory/in_context/one_step_gd.py                 580 mutants, a quarter of an hour
    python -m benchmarks.mutants theory/in_context/one_step_gd.py --limit 60      a sample, drawn from --seed

A mutant is the module with one mistake in it. The claims that import the module should notice: by a check that fails,
by a control that passes, or by a decision that is lost. Who survives is printed as a diff. A survivor that computes
the same as the original belongs into `equivalent_mutants.toml` with the reason, and no longer counts; an entry there
that matches no survivor is an error.

Mutants come from cosmic-ray's operators, taken as a library (`benchmarks.mutation`); they run here
(`benchmarks.mutant_runs`). cosmic-ray's own runner starts an interpreter per mutant (1.9 s for an empty module that
imports numpy) and takes a test suite that is red anyway for one that kills everything. mutmut 3 forks, which is fast,
but skips every function with a decorator and all that runs at import, knows two mutants of `n + 1`, none of `a @ b`,
and wraps functions in a trampoline that `inspect` and pickling see.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.affected_tests import CLAIMS, NoTests
from benchmarks.mutant_runs import Baseline, Outcome, RunError, Runner
from benchmarks.mutation import Mutant, Mutants, mutants_of
from reports.environment import describe

WAIVERS = "benchmarks/equivalent_mutants.toml"
AIM = 0.95


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0 when each module's score reaches the aim and no waiver is stale, 1 if not, 2 on misuse."""
    options = _parser().parse_args(arguments)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # before numpy is loaded: a process with threads forks badly
    root = Path.cwd().resolve()
    try:
        waivers = load_waivers(root / WAIVERS)
        modules = [_module(root, name) for name in options.modules]
        with Runner(root, options.workers) as runner:
            reports = [judge(runner, module, waivers, options) for module in modules]
    except (NoTests, RunError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mutants: interrupted; the checkout is as it was, the scratch copies are gone", file=sys.stderr)
        return 130
    for report in reports:
        print(text(report))
    if options.json:
        environment = describe(root, suite_seed=0, profile="quick", device="cpu")
        whole = {"environment": environment, "aim": options.aim, "modules": reports}
        Path(options.json).write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", "utf-8")
    missed = [report["module"] for report in reports if report["score"] < options.aim]
    for module in missed:
        print(f"below the aim of {options.aim:.0%}: {module}")
    return int(bool(missed or any(report["stale_waivers"] for report in reports)))


def judge(runner: Runner, module: str, waivers: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Mutate one module, run its tests, count.

    Raises:
        RunError: the tests cannot judge; see `Runner.baseline`.
    """
    made = mutants_of(runner.root, module, options.all_operators)
    tests = runner.baseline(module)
    seconds = sum(tests.seconds.values())
    chosen = sample(made.runnable, options.limit, options.seed)
    limit = options.timeout or 10 + 4 * seconds
    _say(f"{module}: {len(chosen)} of {len(made.runnable)} mutants, {len(tests.seconds)} tests of {seconds:.0f} s")
    outcomes: dict[Mutant, Outcome] = {}
    started = time.monotonic()
    for mutant, outcome in runner.run(chosen, tests, limit):
        outcomes[mutant] = outcome
        if len(outcomes) % 20 == 0 or len(outcomes) == len(chosen):
            _say(_progress(outcomes, len(chosen), time.monotonic() - started))
    return summary(module, made, chosen, outcomes, tests, waivers) | {
        "seed": options.seed, "operators": "all" if options.all_operators else "plausible",
        "seconds": round(time.monotonic() - started, 1), "workers": options.workers, "seconds_allowed": limit,
    }  # fmt: skip


def sample(mutants: list[Mutant], limit: int | None, seed: int) -> list[Mutant]:
    """All of them, or `limit` drawn from the seed, in the order of the module."""
    if limit is None or limit >= len(mutants):
        return mutants
    return [mutants[i] for i in sorted(random.Random(seed).sample(range(len(mutants)), limit))]


# -- waivers -----------------------------------------------------------------------------------------------------------


def load_waivers(path: Path) -> list[dict[str, Any]]:
    """Entries `[[equivalent]]` with module, function, before, after, reason, and nth where it is not the first.

    Raises:
        RunError: no TOML, or an entry lacks a field or has an unknown one.
    """
    if not path.exists():
        return []
    try:
        entries: list[dict[str, Any]] = tomllib.loads(path.read_text("utf-8")).get("equivalent", [])
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path}: {error}; correct it") from error
    needed = {"module", "function", "before", "after", "reason"}
    for number, entry in enumerate(entries, start=1):
        wrong = (needed - entry.keys()) | (entry.keys() - needed - {"nth"})
        if wrong or not entry["reason"].strip():
            what = f"fields missing or unknown: {', '.join(sorted(wrong))}" if wrong else "the reason is empty"
            raise RunError(f"{path}: entry {number}: {what}")
    return entries


def _key(entry: dict[str, Any]) -> tuple[str, str, str, str, int]:
    return entry["module"], entry["function"], entry["before"], entry["after"], entry.get("nth", 1)


# -- counting ----------------------------------------------------------------------------------------------------------


def summary(
    module: str, made: Mutants, chosen: list[Mutant], outcomes: dict[Mutant, Outcome], tests: Baseline,
    waivers: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """The module's part of the report. Waivers for mutants that exist but were not drawn are left alone."""
    reasons = {_key(entry): entry["reason"] for entry in waivers if entry["module"] == module}
    survived = [mutant for mutant in chosen if outcomes[mutant].status == "survived"]
    equivalent = [mutant for mutant in survived if mutant.key in reasons]
    undrawn = {mutant.key for mutant in made.runnable} - {mutant.key for mutant in chosen}
    stale = reasons.keys() - {mutant.key for mutant in equivalent} - undrawn
    noticed = [outcome for outcome in outcomes.values() if outcome.status != "survived"]
    by_claims = [outcome for outcome in noticed if outcome.test.startswith(CLAIMS)]
    counted = len(chosen) - len(equivalent)
    return {
        "module": module,
        "mutants": {"made": len(made.runnable), "run": len(chosen), "incompetent": made.incompetent,
                    "not_behaviour": made.not_behaviour},
        "killed": len(noticed), "killed_by_claims": len(by_claims),
        "score": len(noticed) / counted if counted else 1.0,
        "score_of_claims": len(by_claims) / counted if counted else 1.0,
        "survivors": [_described(mutant) for mutant in survived if mutant.key not in reasons],
        "equivalent": [_described(mutant) | {"reason": reasons[mutant.key]} for mutant in equivalent],
        "timeouts": [_described(one) | {"test": outcomes[one].test} for one in chosen
                     if outcomes[one].status == "timeout"],
        "stale_waivers": [dict(zip(("module", "function", "before", "after", "nth"), key, strict=True))
                          for key in sorted(stale)],
        "killers": dict(Counter(outcome.test for outcome in noticed).most_common()),
        "tests": tests.seconds,
    }  # fmt: skip


def _described(mutant: Mutant) -> dict[str, Any]:
    fields = ("module", "line", "function", "operator", "before", "after", "nth")
    return {name: getattr(mutant, name) for name in fields}


# -- what is printed ---------------------------------------------------------------------------------------------------


def text(report: dict[str, Any]) -> str:
    """A module's report for the terminal."""
    mutants, equivalent = report["mutants"], report["equivalent"]
    lines = [
        f"{report['module']}: score {report['score']:.1%}, by claims alone {report['score_of_claims']:.1%}",
        f"  of {mutants['made']} mutants {mutants['run']} were run: {report['seconds']} s, {report['workers']} workers",
        f"  {report['killed']} killed: {report['killed_by_claims']} by claims, the others by unit tests; "
        f"{len(report['timeouts'])} of them by running out of time",
        f"  {len(report['survivors'])} survived, and {len(equivalent)} more that are equivalent",
        f"  not run: {mutants['incompetent']} that are no Python, {mutants['not_behaviour']} that change no behaviour",
    ]
    for title, group in (("survived", report["survivors"]), ("out of time", report["timeouts"])):
        lines += [diff(one, title) for one in group]
    lines += [f"equivalent: {one['module']}:{one['line']} {one['after']}\n    {one['reason']}" for one in equivalent]
    lines += [
        f"stale waiver: {WAIVERS} excuses {one['before']!r} -> {one['after']!r} (nth = {one['nth']}) in "
        f"{one['module']} {one['function']}, which is killed or no longer arises: remove the entry"
        for one in report["stale_waivers"]
    ]
    if report["survivors"]:
        lines.append(
            "Write a check that kills each survivor. One that computes the same as the original goes into "
            f"{WAIVERS}: [[equivalent]] with module, function, before, after (without the signs), nth and reason."
        )
    return "\n".join(lines)


def diff(one: dict[str, Any], title: str) -> str:
    nth = f", nth = {one['nth']}" if one["nth"] > 1 else ""
    lines = [f"{title}: {one['module']}:{one['line']} in {one['function'] or 'the module'} ({one['operator']}{nth})"]
    lines += [f"    -{line}" for line in one["before"].splitlines()]
    lines += [f"    +{line}" for line in one["after"].splitlines()]
    return "\n".join(lines)


def _progress(outcomes: dict[Mutant, Outcome], total: int, seconds: float) -> str:
    count = Counter(outcome.status for outcome in outcomes.values())
    left = seconds / len(outcomes) * (total - len(outcomes))
    return (
        f"  {len(outcomes)}/{total}: {count['killed']} killed, {count['survived']} survived, {count['timeout']} out of "
        f"time; {left / 60:.1f} min left"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- options -----------------------------------------------------------------------------------------------------------


def _module(root: Path, name: str) -> str:
    path = (root / name).resolve()
    if not path.is_file() or path.suffix != ".py" or not path.is_relative_to(root):
        raise RunError(
            f"no module {name} in {root}: give paths from the root, such as theory/in_context/local_minima.py"
        )
    return path.relative_to(root).as_posix()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.mutants", description="Do claims notice mistakes in theory?")
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="such as theory/in_context/one_step_gd.py")
    parser.add_argument("--json", metavar="FILE", help="write the report, with the environment it was made in")
    parser.add_argument("--limit", type=int, metavar="N", help="draw N mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="what they are drawn from (default 0)")
    parser.add_argument("-n", dest="workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for one mutant (default: from the tests)")
    parser.add_argument("--aim", type=float, default=AIM, help=f"least score of each module (default {AIM})")
    parser.add_argument("--all-operators", action="store_true", help="also what nobody would write by mistake")
    return parser


if __name__ == "__main__":
    sys.exit(main())
