"""What a paper asserts, and the checks that are bound to it.

A claim file declares `Claim` objects at module level and binds test functions to them with `Claim.check` and
`Claim.refutation`. The *subject* of a check is its keyword-only parameters: their defaults are the true thing, a
*control* replaces one or more of them by something broken, and must then fail through `evidence.expect`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

LEVELS = ("proof", "certified", "exact", "property", "statistical", "experiment", "benchmark")
"""Kinds of evidence, strongest first."""

Kind = Literal["check", "refutation"]
Test = TypeVar("Test", bound=Callable[..., Any])

CHECK_ATTRIBUTE = "__attest_check__"
DECLARED: dict[str, list[Claim]] = {}
"""Every claim declared in this process, by file. A file that is imported anew declares its claims anew."""


@dataclass(eq=False)
class Claim:
    """One statement of a paper.

    Attributes:
        paper: key of an entry in `references.bib`.
        slug: the claim's own key within the paper; `paper/slug` is its key.
        where: place in the paper, such as "Theorem 1", or whose reading it is.
        says: the statement in one sentence of ours, with its quantifiers.
        formula: the statement's formula in LaTeX.
        gap: what the checks do not show.
        repair: the statement under the extra hypothesis that makes it true; empty when none is needed or known.
    """

    paper: str
    slug: str
    where: str
    says: str
    formula: str
    gap: str
    repair: str = ""
    checks: list[Check] = field(default_factory=list, init=False)
    file: str = field(init=False)
    line: int = field(init=False)
    _module: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        caller = sys._getframe(2)  # __post_init__, the generated __init__, the declaration
        self.file, self.line = str(Path(caller.f_code.co_filename).resolve()), caller.f_lineno
        self._module = caller.f_globals
        same_import = [claim for claim in DECLARED.get(self.file, []) if claim._module is self._module]
        DECLARED[self.file] = [*same_import, self]

    @property
    def key(self) -> str:
        return f"{self.paper}/{self.slug}"

    def check(
        self, level: str, *, controls: Mapping[str, Mapping[str, Any]], scope: str = ""
    ) -> Callable[[Test], Test]:
        """Bind a test function that holds when the claim does.

        Args:
            level: one of `LEVELS`.
            controls: name of a broken subject -> {keyword-only parameter: its broken replacement}.
            scope: the part of the statement that is covered, if not all of it. A scoped check lends its level to the
                verdict only when no check covers the whole statement.
        """
        return self._binder("check", level, controls, scope)

    def refutation(
        self, level: str, *, controls: Mapping[str, Mapping[str, Any]], scope: str = ""
    ) -> Callable[[Test], Test]:
        """Bind a test function that passes by exhibiting a counterexample to the statement as printed."""
        return self._binder("refutation", level, controls, scope)

    def _binder(
        self, kind: Kind, level: str, controls: Mapping[str, Mapping[str, Any]], scope: str
    ) -> Callable[[Test], Test]:
        def bind(function: Test) -> Test:
            check = Check(self, function, kind, level, {name: dict(swap) for name, swap in controls.items()}, scope)
            self.checks.append(check)
            setattr(function, CHECK_ATTRIBUTE, check)
            return function

        return bind


@dataclass(eq=False)
class Check:
    """A test function bound to one claim at one level, with its controls."""

    claim: Claim
    function: Callable[..., Any]
    kind: Kind
    level: str
    controls: dict[str, dict[str, Any]]
    scope: str

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def says(self) -> str:
        """First paragraph of the docstring, on one line."""
        return " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())

    @functools.cached_property
    def arguments(self) -> frozenset[str]:
        """Names that the test function takes from fixtures or, for a control, from its replacements."""
        return frozenset(inspect.signature(self.function).parameters)

    @property
    def scaled(self) -> bool:
        """Does it have a version at the paper's own size, for --scale full?"""
        return "scale" in self.arguments

    @property
    def checkpoint(self) -> bool:
        """Does it speak of the user's own model, behind --checkpoint?"""
        return "checkpoint" in self.arguments

    @functools.cached_property
    def body(self) -> Callable[..., Any]:
        """The function as it was written, below `given`."""
        handle = getattr(self.function, "hypothesis", None)
        written: Callable[..., Any] = inspect.unwrap(handle.inner_test if handle is not None else self.function)
        return written

    @property
    def line(self) -> int:
        return self.body.__code__.co_firstlineno

    @property
    def subjects(self) -> dict[str, Any]:
        """Keyword-only parameters that have a default: what a control may replace."""
        parameters = inspect.signature(self.body).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def declared_below(root: Path) -> list[Claim]:
    """The claims that this process has seen declared in files below `root`."""
    return [claim for file, claims in DECLARED.items() if Path(file).is_relative_to(root) for claim in claims]


def check_of(function: object) -> Check | None:
    """The check that a collected test function is bound to, if any."""
    check = getattr(function, CHECK_ATTRIBUTE, None)
    return check if isinstance(check, Check) else None


def strongest(levels: list[str]) -> str:
    return min(levels, key=LEVELS.index)


def weakest(levels: list[str]) -> str:
    return max(levels, key=LEVELS.index)


def given(**strategies: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Hypothesis' `given` for checks: it lets the subject have a default, which Hypothesis' own refuses.

    It also tells the evidence where each example begins and what was drawn for it. Strategies are passed by keyword.
    """
    import hypothesis

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def example(**arguments: Any) -> Any:
            evidence = arguments["evidence"]
            evidence.begin_example({name: arguments[name] for name in strategies})
            return function(**arguments, **evidence.replaced)

        signature = inspect.signature(function)
        required = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.default is p.empty]
        example.__signature__ = signature.replace(parameters=required)  # type: ignore[attr-defined]
        return hypothesis.given(**strategies)(example)

    return decorate
