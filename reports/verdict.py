"""From the outcomes of a claim's checks and controls to its verdict.

A claim about the user's own model is judged by what that model does, so nothing that it does is a failure of the suite:
a check that is violated refutes the claim on this checkpoint, and a control that passes leaves it undecided there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reports.claim import strongest, weakest

VERDICTS = ("supported", "amended", "refuted", "inconclusive", "not run", "broken")
FAILED = ("violated", "error")
WHAT_OF_CONTROLS = {"inconclusive": "was left undecided", "passed": "passed the check"}


@dataclass(frozen=True)
class Verdict:
    """`word` is one of `VERDICTS`; None where a check failed or was lost: no verdict, and the run fails."""

    word: str | None
    level: str | None
    why: str


def judge(claim: dict[str, Any]) -> Verdict:
    """The verdict on one claim of a results file, from its `checks` and its `repair`."""
    ran = [check for check in claim["checks"] if check["outcome"] != "not run"]
    if not ran:
        return Verdict("not run", None, _reasons(claim["checks"]))
    for stop in (_lost(ran), _broken(ran), _failed(ran), _on_checkpoint(ran)):
        if stop is not None:
            return stop
    held = [check for check in ran if check["outcome"] == "held"]
    refutations = [check for check in held if check["kind"] == "refutation"]
    checks = [check for check in held if check["kind"] == "check"]
    undecided = [check for check in ran if check["outcome"] == "inconclusive"]
    if undecided and not (refutations and not claim["repair"]):
        return Verdict("inconclusive", None, f"{undecided[0]['name']}: {undecided[0]['why']}")
    rest = _rest(claim["checks"], ran)
    if refutations and not (claim["repair"] and checks):
        level = strongest([check["level"] for check in refutations])
        return Verdict("refuted", level, f"{_count(refutations, 'counterexample')} exhibited{rest}")
    if refutations:
        level = weakest([strongest([check["level"] for check in refutations]), covering_level(checks)])
        return Verdict("amended", level, f"false as printed; {_count(checks, 'check')} of the repair held{rest}")
    return Verdict("supported", covering_level(checks), f"{_count(checks, 'check')} held{rest}")


def covering_level(checks: list[dict[str, Any]]) -> str:
    """Strongest level that covers the whole statement; where each check covers a part, the weakest of the parts."""
    whole = [check["level"] for check in checks if not check["scope"]]
    return strongest(whole) if whole else weakest([check["level"] for check in checks])


def _lost(ran: list[dict[str, Any]]) -> Verdict | None:
    for check in ran:
        lost = [check["name"]] if check["outcome"] == "lost" else []
        lost += [f"control {one['name']!r} of {check['name']}" for one in check["controls"] if one["outcome"] == "lost"]
        if lost:
            return Verdict(None, None, f"{lost[0]} was lost: its process died or the run was stopped")
    return None


def _broken(ran: list[dict[str, Any]]) -> Verdict | None:
    for check in ran:
        if check["outcome"] == "no case":
            return Verdict("broken", None, f"{check['name']}: no case met the hypothesis")
    for check in ran:
        for control in check["controls"]:
            if control["outcome"] == "inconclusive" == check["outcome"]:
                continue  # what cannot tell on the true subject need not tell on a broken one
            if check["checkpoint"] and control["outcome"] in WHAT_OF_CONTROLS:
                continue  # the user's model is so: see `_on_checkpoint`
            if control["outcome"] != "rejected":
                what = WHAT_OF_CONTROLS.get(control["outcome"], f"was not run ({control['why']})")
                if control["outcome"] == "error":
                    what = f"failed for another reason than the claim's assertion ({control['why']})"
                return Verdict("broken", None, f"control {control['name']!r} of {check['name']} {what}")
    return None


def _failed(ran: list[dict[str, Any]]) -> Verdict | None:
    for check in ran:
        if check["outcome"] in FAILED and not (check["checkpoint"] and check["outcome"] == "violated"):
            return Verdict(None, None, f"{check['name']} failed: {check['why']}")
    return None


def _on_checkpoint(ran: list[dict[str, Any]]) -> Verdict | None:
    """What the user's own model does otherwise; such a claim has no checks of another kind."""
    ran = [check for check in ran if check["checkpoint"]]
    for check in ran:
        if check["outcome"] == "violated":
            return Verdict("refuted", check["level"], f"not so on this checkpoint: {check['why']}")
    for check in ran:
        for control in check["controls"]:
            if check["outcome"] == "held" and control["outcome"] != "rejected":
                why = f"control {control['name']!r} of {check['name']} {WHAT_OF_CONTROLS[control['outcome']]}"
                return Verdict("inconclusive", None, f"{why}: on this checkpoint the check cannot tell")
    return None


def _count(checks: list[dict[str, Any]], noun: str) -> str:
    return f"{len(checks)} {noun}{'' if len(checks) == 1 else 's'}"


def _rest(checks: list[dict[str, Any]], ran: list[dict[str, Any]]) -> str:
    missing = [check for check in checks if check not in ran]
    return f"; not run: {_reasons(missing)}" if missing else ""


def _reasons(checks: list[dict[str, Any]]) -> str:
    return "; ".join(dict.fromkeys(check["why"] for check in checks))
