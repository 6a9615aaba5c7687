"""Mutants of a module: copies of its source that differ in one place, made by the operators of cosmic-ray.

The operators are those whose result somebody could have written by mistake. All of cosmic-ray's would add ten shifts
and bit operations to each `+` on floats, which any test kills with a TypeError: they raise the score and test nothing.
Three are our own, for what theory on arrays can get wrong and cosmic-ray does not touch: `@`, `.T`, min for max.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    from cosmic_ray.ast import ast_nodes, get_ast  # type: ignore[import-untyped]
    from cosmic_ray.mutating import mutate_code  # type: ignore[import-untyped]
    from cosmic_ray.operators.operator import Operator  # type: ignore[import-untyped]
    from cosmic_ray.plugins import get_operator, operator_names  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError("mutants are made by cosmic-ray: pip install --group mutants") from error

MISTAKEN_FOR = {
    "BinaryOperator": {
        "Add": "Sub Mul", "Sub": "Add Mul", "Mul": "Add Div", "Div": "Mul FloorDiv", "FloorDiv": "Div Mul",
        "Mod": "FloorDiv Mul", "Pow": "Mul Add", "LShift": "RShift", "RShift": "LShift",
        "BitAnd": "BitOr BitXor", "BitOr": "BitAnd BitXor", "BitXor": "BitAnd BitOr",
    },
    "ComparisonOperator": {
        "Eq": "NotEq LtE GtE", "NotEq": "Eq Lt Gt", "Lt": "LtE GtE NotEq", "LtE": "Lt Gt Eq", "Gt": "GtE LtE NotEq",
        "GtE": "Gt Lt Eq", "Is": "IsNot", "IsNot": "Is",
    },
    "UnaryOperator": {"Delete": "USub Invert Not"},
}  # fmt: skip
"""For each kind of operator: what is in the source -> what could stand there by mistake."""

TWINS = ("min max", "minimum maximum", "argmin argmax", "floor ceil", "sin cos", "any all", "triu tril", "real imag")
SWAPPED = {a: b for pair in TWINS for a, b in (pair.split(), reversed(pair.split()))}


@dataclass(frozen=True)
class Mutant:
    """One changed place.

    Attributes:
        module: path of the module in the checkout, with forward slashes.
        function: the function or class it is in, dotted; empty at module level.
        before: the changed lines as they were, each stripped of blanks.
        after: the same lines, changed.
        nth: which one it is, counted from 1, where function, before and after are the same.
        line: number of the first changed line; no part of the identity.
        operator: what made it.
        source: the whole mutated module.
    """

    module: str
    function: str
    before: str
    after: str
    nth: int
    line: int
    operator: str
    source: str = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What stays the same when lines are added elsewhere in the module."""
        return self.module, self.function, self.before, self.after, self.nth


@dataclass
class Mutants:
    """All mutants of one module that can be run, and how many of the others there were."""

    runnable: list[Mutant]
    incompetent: int
    not_behaviour: int


# -- operators that cosmic-ray lacks -----------------------------------------------------------------------------------


class MatrixProductToProduct(Operator):  # type: ignore[misc]
    """`a @ b` becomes `a * b`."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "operator" and node.value == "@" and node.parent.type == "term":
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = "*"
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


class DropTranspose(Operator):  # type: ignore[misc]
    """`a.T` becomes `a`."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "trailer" and node.get_code() in (".T", ".mT"):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> None:
        return None

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


class SwapTwins(Operator):  # type: ignore[misc]
    """`max` becomes `min`, and so on: names that differ in a letter or two and in everything they do."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        used = node.type == "name" and node.parent.type in ("trailer", "atom_expr")
        if used and node.value in SWAPPED:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = SWAPPED[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        return ()


# -- all mutants of a module -------------------------------------------------------------------------------------------


def operators(everything: bool = False) -> list[tuple[str, Any]]:
    """(name, operator) pairs: the plausible ones, or all that need no arguments."""
    chosen = [(name.removeprefix("core/"), get_operator(name)) for name in operator_names()]
    made = [(name, cls()) for name, cls in chosen if not cls.arguments() and (everything or plausible(name))]
    return made + [(cls.__name__, cls()) for cls in (MatrixProductToProduct, DropTranspose, SwapTwins)]


def plausible(name: str) -> bool:
    """Whether somebody could have written the operator's result by mistake; see `MISTAKEN_FOR`."""
    kind, _, rest = name.removeprefix("Replace").partition("_")
    before, _, after = rest.partition("_")
    return kind not in MISTAKEN_FOR or after in MISTAKEN_FOR[kind].get(before, "").split()


def mutants_of(root: Path, module: str, everything: bool = False) -> Mutants:
    """Mutants of a module, in the order of its lines.

    Args:
        root: the checkout.
        module: path of the module relative to it, with forward slashes.
        everything: use all operators of cosmic-ray, not only the plausible ones.

    Raises:
        OSError: the module cannot be read.
        SyntaxError: it is no Python.
    """
    source = (root / module).read_text("utf-8")
    found = Mutants([], 0, 0)
    owners = _owners(ast.parse(source))
    seen, count = {source}, Counter[tuple[str, str, str]]()
    made = sorted(_mutated(source, operators(everything)), key=lambda one: one[0])
    for line, operator, before, after, whole, competent, matters in made:
        if whole in seen:
            continue
        seen.add(whole)
        found.incompetent += not competent
        found.not_behaviour += competent and not matters
        if competent and matters:
            identity = owners.get(line, ""), before, after
            count[identity] += 1
            found.runnable.append(Mutant(module, *identity, count[identity], line, operator, whole))
    return found


def _mutated(source: str, chosen: list[tuple[str, Any]]) -> Iterator[tuple[int, str, str, str, str, bool, bool]]:
    """Line, operator, lines before, lines after, whole source, is it Python, does it change behaviour.

    Works on one top-level statement at a time: cosmic-ray parses its input anew for each mutant.
    """
    position = 0
    for statement in get_ast(source).children:
        code = statement.get_code()
        head, tail = source[:position], source[position + len(code) :]
        position += len(code)
        nodes = list(ast_nodes(get_ast(code)))
        if not code.strip():
            continue
        meaning = behaviour(code)
        for name, operator in chosen:
            for occurrence in range(sum(1 for node in nodes for _ in operator.mutation_positions(node))):
                mutated = mutate_code(code, operator, occurrence)
                offset, before, after = changed_lines(code, mutated)
                try:
                    competent, matters = True, behaviour(mutated) != meaning
                except SyntaxError:
                    competent, matters = False, True
                yield head.count("\n") + offset + 1, name, before, after, head + mutated + tail, competent, matters


def changed_lines(old: str, new: str) -> tuple[int, str, str]:
    """Offset of the first line that differs, and all differing lines of both sides, stripped of blanks."""
    a, b = old.splitlines(), new.splitlines()
    start = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    rest = zip(reversed(a[start:]), reversed(b[start:]), strict=False)
    same = next((i for i, pair in enumerate(rest) if pair[0] != pair[1]), min(len(a), len(b)) - start)
    blank = next((i for i, line in enumerate(a[start : len(a) - same]) if line.strip()), 0)
    before, after = ("\n".join(line.strip() for line in side[start : len(side) - same]).strip() for side in (a, b))
    return start + blank, before, after


# -- what is behaviour -------------------------------------------------------------------------------------------------


def behaviour(code: str) -> str:
    """The code's syntax tree without docstrings, annotations, messages of exceptions and code for type checkers.

    Raises:
        SyntaxError: it is no Python.
    """
    return ast.dump(_Behaviour().visit(ast.parse(code)))


class _Behaviour(ast.NodeTransformer):
    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """cosmic-ray takes the bare `*` before keyword-only parameters for a product, and makes it `/`."""
        parameters = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        defaults = [*node.defaults, *(default for default in node.kw_defaults if default is not None)]
        flat = {"posonlyargs": [], "args": parameters, "kwonlyargs": [], "defaults": defaults, "kw_defaults": []}
        return self.generic_visit(replace_fields(node, **flat))

    def visit_arg(self, node: ast.arg) -> ast.AST:
        stripped: ast.AST = replace_fields(node, annotation=None)
        return stripped

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return self.generic_visit(replace_fields(node, annotation=ast.Constant(None)))

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return ast.Pass() if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        bare: ast.AST = replace_fields(node, exc=node.exc.func) if isinstance(node.exc, ast.Call) else node
        return bare

    def visit_If(self, node: ast.If) -> ast.AST:
        typing_only = "TYPE_CHECKING" in ast.unparse(node.test)  # its negation is a mutant of the same kind
        return ast.Pass() if typing_only and not node.orelse else self.generic_visit(node)


def replace_fields(node: Any, **fields: Any) -> Any:
    """The same node with other fields."""
    return type(node)(**{name: getattr(node, name, None) for name in node._fields} | fields)


def _owners(tree: ast.AST, inside: str = "") -> dict[int, str]:
    """Line -> dotted name of the innermost function or class around it, decorators included."""
    owners: dict[int, str] = {}
    for node in ast.iter_child_nodes(tree):
        name = inside
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{inside}.{node.name}".lstrip(".")
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            owners |= dict.fromkeys(range(first, (node.end_lineno or first) + 1), name)
        owners |= _owners(node, name)
    return owners
