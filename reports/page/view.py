"""What the page says about results, before it is HTML: groups, counts and sentences. The templates only lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports.claim import LEVELS
from reports.formula import FormulaError, to_mathml
from reports.page import display
from reports.page.closeness import Closeness, closest
from reports.svg import FigureError, inline

Json = dict[str, Any]


@dataclass(frozen=True)
class Word:
    """A verdict or outcome as shown: `slug` names its colour, `icon` its sign, `word` says it."""

    slug: str
    icon: str
    word: str
    gloss: str = ""


VERDICTS: dict[str | None, Word] = {
    "supported": Word("supported", "supported", "supported", "every check held, and every control was rejected"),
    "amended": Word("amended", "amended", "amended", "false as printed, true under a named extra hypothesis"),
    "refuted": Word("refuted", "refuted", "refuted", "false as printed: a counterexample was exhibited"),
    "inconclusive": Word("inconclusive", "inconclusive", "inconclusive", "undecided; what it would take is said"),
    "not run": Word("not-run", "not-run", "not run", "needs what this machine lacks; never counted as supported"),
    "broken": Word("broken", "broken", "broken", "a control passed, or no case met the hypothesis: worthless evidence"),
    None: Word("none", "none", "no verdict", "a check failed or was lost, so nothing is concluded"),
}  # fmt: skip
WORST_FIRST = ("broken", None, "refuted", "amended", "inconclusive", "not run")

OUTCOMES: dict[str, Word] = {
    "held": Word("supported", "supported", "held"),
    "exhibited": Word("refuted", "refuted", "exhibited"),
    "rejected": Word("supported", "supported", "rejected"),
    "violated": Word("refuted", "refuted", "violated"),
    "inconclusive": VERDICTS["inconclusive"],
    "not run": VERDICTS["not run"],
    "passed": Word("broken", "broken", "passed"),
    "no case": Word("broken", "broken", "no case"),
    "error": Word("broken", "broken", "error"),
    "lost": Word("none", "none", "lost"),
}
LEVEL_GLOSS = {
    "proof": "a symbolic identity or inequality, each step checked by machine",
    "certified": "interval arithmetic over a covered box",
    "exact": "a closed form in float64 or rational arithmetic",
    "property": "no counterexample among generated cases that aim at the bound",
    "statistical": "a test or an interval with its error declared beforehand",
    "experiment": "models trained from scratch, several seeds",
    "benchmark": "timed on a named device",
}
assert tuple(LEVEL_GLOSS) == LEVELS


def outcome(word: str, kind: str = "check") -> Word:
    """How an outcome is shown; a refutation that holds has exhibited its counterexample."""
    if word == "held" and kind == "refutation":
        word = "exhibited"
    return OUTCOMES.get(word, Word("none", "none", word))


def prepare(results: Json) -> Json:
    """Everything the template needs.

    Raises:
        FormulaError: a formula cannot be set.
        FigureError: a figure contains more than drawing.
    """
    figures = Figures()
    claims = [_claim(claim, figures) for claim in results["claims"]]
    groups = _groups(results["papers"], claims)
    tally = Counter(claim["verdict"].slug for claim in claims)
    return {
        "run": results,
        "claims": claims,
        "groups": groups,
        "tally": [(word, tally[word.slug]) for word in VERDICTS.values()],
        "lead": _lead(claims, len(groups)),
        "findings": list(_findings(claims)),
        "unrun": [claim for claim in claims if claim["verdict"].slug == "not-run" and not claim["finding"]],
        "levels": [level for level in LEVELS if any(claim["level"] == level for claim in claims)],
        "failing": len(results["problems"]),
    }


class Figures:
    """Numbers the figures of a page, so that their ids differ."""

    def __init__(self) -> None:
        self.drawn = 0

    def draw(self, figure: Json) -> Json:
        self.drawn += 1
        return figure | {"svg": Markup(inline(figure["svg"], f"f{self.drawn}-", figure["title"] or "figure"))}


def _claim(claim: Json, figures: Figures) -> Json:
    checks = [_check(claim, check, figures) for check in claim["checks"]]
    controls = [control for check in checks for control in check["controls"]]
    word = VERDICTS[claim["verdict"]]
    recorded = claim["recorded"] and claim["recorded"] | {"word": VERDICTS[claim["recorded"]["verdict"]]}
    unrun_finding = word.slug == "not-run" and recorded and recorded["verdict"] not in ("supported", "not run")
    return claim | {
        "verdict": word,
        "recorded": recorded,
        "finding": word.slug not in ("supported", "not-run") or bool(unrun_finding),
        "math": _math(claim),
        "checks": checks,
        "ran": any(check["outcome"].slug != "not-run" for check in checks),
        "evidence": _evidence(checks),
        "controls": _controls(controls),
        "closest": closest(one for check in checks for one in check["quantities"]),
        "counterexample": _counterexample(checks),
        "seconds": sum(check["seconds"] for check in checks) + sum(control["seconds"] for control in controls),
    }


def _math(claim: Json) -> Markup:
    if not claim["formula"].strip():
        return Markup("")
    try:
        return Markup(to_mathml(claim["formula"]))
    except FormulaError as error:
        raise FormulaError(error.formula, f"{error.reason} (claim {claim['key']})") from None


def _check(claim: Json, check: Json, figures: Figures) -> Json:
    near: tuple[Any, Closeness] | None = closest(check["quantities"])
    try:
        drawn = [figures.draw(figure) for figure in check["figures"]]
    except FigureError as error:
        raise FigureError(f"{claim['key']}, {check['name']}: {error}") from None
    return check | {
        "measured": check["measured"] and _measured(claim, check, figures),
        "id": f"{claim['key']}/{check['name']}",
        "outcome": outcome(check["outcome"], check["kind"]),
        "title": display.sentence(check["name"]),
        "figures": drawn,
        "controls": [control | {"outcome": outcome(control["outcome"])} for control in check["controls"]],
        "controlled": _controls([control | {"outcome": outcome(control["outcome"])} for control in check["controls"]]),
        "near": near[1] if near else None,
    }


def _measured(claim: Json, check: Json, figures: Figures) -> Json:
    """The same check elsewhere, shown in the same way."""
    whole = check | {"measured": None} | check["measured"]
    return {"environment": whole["environment"], "started": whole["started"]} | _check(claim, whole, figures)


def _evidence(checks: Iterable[Json]) -> str:
    """`2 checks held, 1 not run`: outcomes in the order in which they first come."""
    seen = Counter((check["kind"], check["outcome"].word) for check in checks)
    parts = []
    for (kind, word), amount in seen.items():
        noun = "counterexample" if word == "exhibited" else kind
        parts.append(f"{display.count(amount, noun)} {word}")
    return ", ".join(parts)


def _controls(controls: list[Json]) -> str:
    """`4 of 4 controls rejected`, or what else became of them."""
    ran = [control for control in controls if control["outcome"].slug != "not-run"]
    if not controls:
        return "no control"
    if not ran:
        return f"{display.count(len(controls), 'control')} not run"
    rejected = sum(control["outcome"].word == "rejected" for control in controls)
    return f"{rejected} of {display.count(len(controls), 'control')} rejected"


def _counterexample(checks: Iterable[Json]) -> Json | None:
    """The first counterexample that was exhibited, else the smallest case of a violated check."""
    for check in checks:
        if check["counterexamples"]:
            return dict(check["counterexamples"][0])
    for check in checks:
        if check["smallest_case"] and check["outcome"].word == "violated":
            return {"description": "", "values": check["smallest_case"]}
    return None


def _groups(papers: list[Json], claims: list[Json]) -> list[Json]:
    """The papers in the order of the results, each with its claims; claims of a paper that is not listed come last."""
    by_key: dict[str, list[Json]] = {paper["key"]: [] for paper in papers}
    for claim in claims:
        by_key.setdefault(claim["paper"], []).append(claim)
    known = {paper["key"]: paper for paper in papers}
    nameless = {"title": "", "authors": [], "year": "", "venue": "", "url": ""}
    groups = []
    for key, own in by_key.items():
        tally = Counter(claim["verdict"].slug for claim in own)
        counts = [(word, tally[word.slug]) for word in VERDICTS.values() if tally[word.slug]]
        paper = {"key": key} | known.get(key, nameless)
        groups.append({"paper": paper, "claims": own, "counts": counts, "strip": strip(counts)})
    return [group for group in groups if group["claims"]]


def _lead(claims: list[Json], papers: int) -> str:
    """The whole page in one sentence."""
    supported = sum(claim["verdict"].slug == "supported" for claim in claims)
    findings = sum(claim["finding"] for claim in claims)
    others = len(claims) - supported - findings
    parts = [f"{supported} {'is' if supported == 1 else 'are'} plainly supported", display.count(findings, "finding")]
    parts += [f"{others} not run here"] if others else []
    return f"{display.count(len(claims), 'claim')} from {display.count(papers, 'paper')}: {', '.join(parts)}."


def _findings(claims: list[Json]) -> Iterator[tuple[Word, list[Json]]]:
    """What is not plainly supported, worst first; an unrun claim counts by its verdict on record."""
    found = [claim for claim in claims if claim["finding"]]
    for word in map(VERDICTS.__getitem__, WORST_FIRST):
        if mine := [claim for claim in found if claim["verdict"] is word]:
            yield word, mine


def strip(counts: list[tuple[Word, int]]) -> Markup:
    """The distribution of verdicts as a bar; the words beside it say the same."""
    total = sum(amount for _, amount in counts)
    parts, x = [], 0.0
    for word, amount in counts:
        width = 100 * amount / total
        parts.append(f'<rect class="v-{word.slug}" x="{x:.2f}" width="{width:.2f}" height="8"/>')
        x += width
    drawing = '<svg class="strip" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
    return Markup(f"{drawing}{''.join(parts)}</svg>")


def authors(names: list[str]) -> str:
    """All of up to three authors, else the first and `et al.`"""
    if len(names) > 3:
        return f"{names[0]} et al."
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def web(url: str | None) -> str:
    """An address that may become a link: http and https only."""
    return url if url and url.lower().startswith(("https://", "http://")) else ""
