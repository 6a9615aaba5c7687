"""Mistakes in a claim's declaration, found before anything runs. Each message names the place and the remedy."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from reports.claim import CHECK_ATTRIBUTE, LEVELS, Check, Claim

BIBLIOGRAPHY = "references.bib"


def mistakes(claims: Iterable[Claim], everywhere: Iterable[Claim], root: Path) -> list[str]:
    """What is wrong with these claims.

    Args:
        claims: the claims of one file.
        everywhere: all claims declared so far, for keys that are used twice.
        root: folder that holds `references.bib`.
    """
    papers = paper_keys(root)
    by_key: dict[str, list[Claim]] = {}
    for claim in everywhere:
        by_key.setdefault(claim.key, []).append(claim)
    found = []
    for claim in claims:
        place = f"{os.path.relpath(claim.file, root)}:{claim.line}: claim {claim.key}"
        found += [f"{place}: {what}" for what in _claim_mistakes(claim, by_key[claim.key], papers)]
        for check in claim.checks:
            place = f"{os.path.relpath(claim.file, root)}:{check.line}: check {check.name}"
            found += [f"{place}: {what}" for what in _check_mistakes(check)]
    return found


def paper_keys(root: Path) -> set[str]:
    """Keys of all entries in `references.bib`. Read without pybtex, which a GPU machine may lack."""
    path = root / BIBLIOGRAPHY
    text = path.read_text("utf-8") if path.exists() else ""
    return set(re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", text, re.MULTILINE))


def _claim_mistakes(claim: Claim, of_this_key: list[Claim], papers: set[str]) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", claim.slug):
        yield f"the slug {claim.slug!r} must be lower-case words joined by hyphens"
    if claim.paper not in papers:
        yield f"no entry {claim.paper!r} in {BIBLIOGRAPHY}; add it there"
    for other in of_this_key:
        if other is not claim:
            yield f"the key is already used at {other.file}:{other.line}; give one of them another slug"
    for name in ("where", "says", "formula", "gap"):
        if not getattr(claim, name).strip():
            yield f"`{name}` is empty; every claim states it"
    if not claim.checks:
        yield "no check is bound to it; add a test function under @<claim>.check(...) or @<claim>.refutation(...)"
    elif len({check.checkpoint for check in claim.checks}) > 1:
        yield "only some of its checks take the fixture `checkpoint`; a user's model is the matter of claims of its own"
    elif claim.repair and not ({"check", "refutation"} <= {check.kind for check in claim.checks}):
        yield "a `repair` needs a refutation of what is printed and a check of what is repaired"
    if importlib.util.find_spec("math_core") is not None:
        from reports.formula import FormulaError, to_mathml

        try:
            to_mathml(claim.formula)
        except FormulaError as error:
            yield f"{error}; correct `formula`"


def _check_mistakes(check: Check) -> Iterator[str]:
    parameters = inspect.signature(check.body).parameters
    subjects = check.subjects
    if hasattr(check.function, "hypothesis") and not hasattr(check.function.hypothesis.inner_test, "__wrapped__"):
        yield "import `given` from reports.claim: Hypothesis' own refuses a subject with a default"
    if not check.name.startswith("test_"):
        yield "pytest would not collect it; its name must begin with test_"
    if check.level not in LEVELS:
        yield f"unknown level {check.level!r}; use one of {', '.join(LEVELS)}"
    if "evidence" not in parameters:
        yield "it must take `evidence` and assert through evidence.expect"
    if not check.says:
        yield "it has no docstring; one sentence of it stands on the page"
    if not check.controls:
        yield "it has no control; name a broken subject for which it must fail: controls={'name': {parameter: broken}}"
    for name, replaced in check.controls.items():
        if not replaced:
            yield f"control {name!r} replaces nothing; give {{parameter: broken}}"
        for parameter, broken in replaced.items():
            if parameter not in subjects:
                yield (
                    f"control {name!r} replaces {parameter!r}, which is no keyword-only parameter with a default; "
                    f"the subjects are: {', '.join(subjects) or 'none (put them after a bare *)'}"
                )
            elif broken is subjects[parameter]:
                yield f"control {name!r} replaces {parameter!r} by itself; a control must differ from the true subject"


def collected_mistake(function: object, place: str) -> str | None:
    """What is wrong with a test function that pytest collected from a file of claims."""
    if hasattr(function, CHECK_ATTRIBUTE):
        return None
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", None)
    if hasattr(inner, CHECK_ATTRIBUTE):
        return f"{place}: put @<claim>.check above @given; below it, pytest cannot see it"
    return f"{place}: a test in a file of claims must be bound to a claim; move it, or add @<claim>.check(...)"
