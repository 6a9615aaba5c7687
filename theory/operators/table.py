"""What each attention operator is, costs and keeps: one row per operator of `theory.operators.attention`.

`python -m theory.operators.table` writes docs/operators.md from these rows and the claims below tests/claims. That each
entry is true, and each `no` has a counterexample, is checked in tests/theory/operators/test_table.py.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace

from theory.operators import attention
from theory.operators.attention import Array

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operators.md"
Cost = Literal["n m", "n + m", "entries of x"]


@dataclass(frozen=True)
class Operator:
    """One row.

    functions   of `theory.operators.attention`
    formula     LaTeX of the weights w_ij before any mask, s_ij the scores
    cost        of the output by the best of the functions, in queries n and keys m, width fixed
    normalised  rows sum to 1, always: not where a row can be all zeros
    equivariant permuting the keys permutes the weights, no mask
    shift       adding one number to all scores of a row changes nothing; None: nothing can be added
    scale       multiplying a query by a positive number changes nothing
    positive    weights are at least 0
    source      where it comes from
    papers      whose claims speak of it, keys of references.bib
    weights     an example, (q, k, number added to the scores) to (n, m); q and k of any array library
    output      an example in fewer operations, (q, k, v) to (n, d), if there is one
    """

    name: str
    functions: tuple[str, ...]
    formula: str
    cost: Cost
    normalised: bool
    equivariant: bool
    shift: bool | None
    scale: bool
    positive: bool
    source: str
    papers: tuple[str, ...]
    weights: Callable[[Array, Array, float], Array]
    output: Callable[[Array, Array, Array], Array] | None = None


def plain(function: Callable[..., Array], **options: Any) -> Callable[[Array, Array, float], Array]:
    """An operator whose scores take a bias."""
    return lambda q, k, added: function(q, k, bias=added, **options)


def without_scores(function: Callable[..., Array], **options: Any) -> Callable[[Array, Array, float], Array]:
    """An operator to whose scores nothing can be added."""
    return lambda q, k, added: function(q, k, **options)


def fixed(like: Array, *shape: int) -> Array:
    """Numbers that depend on the shape alone, N(0, 1): parameters and positions of the examples."""
    values = np.random.default_rng(shape).standard_normal(shape)
    return array_namespace(like).astype(array_namespace(like).asarray(values), like.dtype)


def per_key_example(q: Array, k: Array, added: float) -> Array:
    """Logits k.w; the single row is repeated for each query."""
    xp = array_namespace(k)
    row = attention.per_key(k @ fixed(k, k.shape[-1]) + added)
    return xp.broadcast_to(row, (*row.shape[:-2], q.shape[-2], k.shape[-2]))


def per_key_output(q: Array, k: Array, v: Array) -> Array:
    """One row, made once for all queries."""
    row = attention.per_key(k @ fixed(k, k.shape[-1])) @ v
    return array_namespace(v).broadcast_to(row, (*row.shape[:-2], q.shape[-2], v.shape[-1]))


def positional_example(q: Array, k: Array, added: float) -> Array:
    """Positions of as many queries as keys; the data are not looked at."""
    m, d = k.shape[-2:]
    return attention.positional(fixed(q, m, d), fixed(q, d, d), fixed(q, d, d, 1)[..., 0])


def karat_example(q: Array, k: Array, added: float) -> Array:
    """Two hidden units, two frequencies."""
    m = k.shape[-2]
    parts = fixed(q, 2, m, 2), fixed(q, 2, m, 2, 1)[..., 0], fixed(q, m, 2)
    return attention.kolmogorov_arnold(attention.scores(q, k) + added, *parts)


def gaussian_example(function: Callable[..., Array], *parameters: Any) -> Callable[[Array, Array, float], Array]:
    """Scores as the x whose rows are weighed."""

    def weights(q: Array, k: Array, added: float) -> Array:
        xp = array_namespace(q)
        given = [xp.asarray(one, dtype=q.dtype) if isinstance(one, list) else one for one in parameters]
        return function(attention.scores(q, k) + added, *given)

    return weights


OPERATORS = (
    Operator(
        "softmax", ("softmax", "softmax_rows"), r"e^{s_{ij}} / \sum_j e^{s_{ij}}", "n m",
        True, True, True, False, True, "arXiv:1706.03762",
        ("ramapuram2024theory", "gao2025softplus", "fan2025mala", "xue2025deconstructing", "maity2025karat",
         "jin2023trainingfree", "zheng2025l2vit"),
        plain(attention.softmax),
    ),
    Operator(
        "sigmoid", ("sigmoid",), r"1 / (1 + e^{-s_{ij} - b}),\ b = -\ln m", "n m",
        False, True, False, False, True, "arXiv:2409.04431", ("ramapuram2024theory",),
        plain(attention.sigmoid),
    ),
    Operator(
        "softplus, sum 1", ("elementwise",), r"\ln(1 + e^{s_{ij}}) / \sum_j \ln(1 + e^{s_{ij}})", "n m",
        True, True, False, False, True, "arXiv:2501.13428", ("gao2025softplus",),
        plain(attention.elementwise, positive="softplus", normalise="l1"),
    ),
    Operator(
        "exp, length 1", ("elementwise",), r"e^{s_{ij}} / \lVert e^{s_i} \rVert_2", "n m",
        False, True, True, False, True, "arXiv:2501.13428", ("gao2025softplus",),
        plain(attention.elementwise, positive="exp", normalise="l2"),
    ),
    Operator(
        "ReLU, sum 1", ("elementwise",), r"[s_{ij}]_+ / \sum_j [s_{ij}]_+", "n m",
        False, True, False, True, True, "arXiv:2309.08586", ("gao2025softplus",),
        plain(attention.elementwise, positive="relu", normalise="l1"),
    ),
    Operator(
        "ReLU, over m", ("elementwise",), r"[s_{ij}]_+ / m", "n m",
        False, True, False, False, True, "arXiv:2309.08586", ("fu2023single", "ramapuram2024theory"),
        plain(attention.elementwise, positive="relu", normalise="length"),
    ),
    Operator(
        "uniform", ("uniform",), r"1 / m", "n m",
        True, True, None, True, True, "arXiv:2510.11602", ("xue2025deconstructing",),
        without_scores(attention.uniform),
    ),
    Operator(
        "Taylor", ("taylor",), r"T(s_{ij}) / \sum_j T(s_{ij}),\ T(s) = 1 + s + s^2/2", "n m",
        True, True, False, False, True, "arXiv:2402.18668", ("xue2025deconstructing",),
        plain(attention.taylor),
    ),
    Operator(
        "per key", ("per_key",), r"e^{s_j} / \sum_j e^{s_j}", "n + m",
        True, True, True, True, True, "arXiv:2510.11602", ("xue2025deconstructing",),
        per_key_example, per_key_output,
    ),
    Operator(
        "linear, ELU + 1", ("linear", "linear_output"),
        r"\phi(q_i) \cdot \phi(k_j) / \sum_j \phi(q_i) \cdot \phi(k_j)", "n + m",
        True, True, None, False, True, "arXiv:2006.16236", ("fan2025mala", "zheng2025l2vit"),
        without_scores(attention.linear), attention.linear_output,
    ),
    Operator(
        "linear, ReLU", ("linear", "linear_output"), r"\text{the same},\ \phi(x) = [x]_+", "n + m",
        False, True, None, True, True, "arXiv:2205.14756", ("fan2025mala", "zheng2025l2vit"),
        without_scores(attention.linear, feature_map=attention.relu_map),
        partial(attention.linear_output, feature_map=attention.relu_map),
    ),
    Operator(
        "kernel, ELU + 1", ("kernel",), r"\varphi(q_i)^\top \varphi(k_j)", "n m", False, True, None, False, True,
        "Gu et al., arXiv:2410.10781, table 6", ("gu2024attentionsink",), without_scores(attention.kernel),
    ),
    Operator(
        "linear, focused", ("linear", "linear_output"),
        r"\text{the same},\ \phi(x) = \lVert [x]_+ \rVert\, [x]_+^p / \lVert [x]_+^p \rVert", "n + m",
        False, True, None, True, True, "arXiv:2308.00442", ("fan2025mala",),
        without_scores(attention.linear, feature_map=attention.focused),
        partial(attention.linear_output, feature_map=attention.focused),
    ),
    Operator(
        "MALA", ("mala", "mala_output"),
        r"(1 + 1/z_i) S_{ij} - z_i / m,\ S_{ij} = c\, \phi(q_i) \cdot \phi(k_j),\ z_i = \sum_j S_{ij}", "n + m",
        True, True, None, False, False, "arXiv:2507.00698", ("fan2025mala",),
        without_scores(attention.mala), attention.mala_output,
    ),
    Operator(
        "LSSA", ("lssa",), r"\ln(1 + e^{c_{ij}}) / \sum_j \ln(1 + e^{c_{ij}}),\ c_{ij} = \ln d\, \ln m\, \cos(q_i, "
        "k_j)",
        "n m", True, True, None, True, True, "arXiv:2501.13428", ("gao2025softplus",),
        without_scores(attention.lssa),
    ),
    Operator(
        "re-weighted softmax", ("reweight", "reweight_printed"),
        r"[m w_{ij} - o]_+^p / \sum_j [m w_{ij} - o]_+^p\ \text{of softmax } w,\ o = 1\ (0\ \text{for}\ m \le 3)",
        "n m",
        False, True, True, False, True, "arXiv:2501.13428", ("gao2025softplus",),
        lambda q, k, added: attention.reweight(attention.softmax(q, k, bias=added), 3),
    ),
    Operator(
        "positional", ("positional",), r"\text{softmax of } (P W_q)_i \cdot (P W_k)_j / \sqrt{d}", "n m",
        True, False, None, True, True, "arXiv:2410.01686", ("backdeluca2025positional",),
        positional_example,
    ),
    Operator(
        "Gaussian adaptive, code", ("gaussian_adaptive",),
        r"\prod_k g_k(x_{ij}) / \sum_j \prod_k g_k(x_{ij}),\ g_k = \mathcal{N}(\mu + \delta_k, c_k^2 \sigma^2)",
        "entries of x", False, True, True, False, True, "arXiv:2401.11143", ("ioannides2024gaam",),
        gaussian_example(attention.gaussian_adaptive, [0.3, -0.5], [1.0, 2.0]),
    ),
    Operator(
        "Gaussian adaptive, paper", ("gaussian_adaptive_paper",),
        r"\exp\bigl(-(x_{ij} - \mu - \delta)^2 / (2 \xi \sigma^2)\bigr)",
        "entries of x", False, True, True, False, True, "arXiv:2401.11143", ("ioannides2024gaam",),
        gaussian_example(attention.gaussian_adaptive_paper, 0.3, 1.0),
    ),
    Operator(
        "Kolmogorov-Arnold", ("kolmogorov_arnold",),
        r"\sum_p W_{jp} \sum_q \sum_g a_{pqg} \cos(g s_{iq}) + b_{pqg} \sin(g s_{iq})", "n m",
        False, False, False, False, False, "arXiv:2503.10632", ("maity2025karat",),
        karat_example,
    ),
)  # fmt: skip


def claims(root: Path) -> dict[str, dict[str, str]]:
    """Paper key -> slug -> what the claim says, read from the source of the claim files below root/tests/claims."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted((root / "tests" / "claims").rglob("test_*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        names = dict(_constants(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Claim":
                given = {word.arg: _value(word.value, names) for word in node.keywords if word.arg is not None}
                found.setdefault(given["paper"], {})[given["slug"]] = given["says"]
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that a module gives to literal texts."""
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        ):
            yield node.targets[0].id, str(node.value.value)


def _value(node: ast.expr, names: dict[str, str]) -> str:
    """A literal text or the text behind a name; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    return str(node.value) if isinstance(node, ast.Constant) else ""


INTRODUCTION = r"""# Attention operators

Written by `python -m theory.operators.table`; edit `theory/operators/table.py`, not this file. Every entry is checked
in `tests/theory/operators/test_table.py`: `yes` on random inputs, `no` by a counterexample, the cost by counting.

Scores are $s_{ij} = q_i \cdot k_j / \sqrt{d}$, $n$ queries, $m$ keys, $w_{ij}$ the weights without a mask. *Sum 1*:
every
row sums to 1 (`no` where a row can vanish). *Keys*: permuting keys permutes weights. *Shift*: adding a number to all
scores changes nothing. *Scale*: nor does multiplying a query by a positive number. *Signs*: no weight is negative.

| operator | weights | cost | sum 1 | keys | shift | scale | signs | source |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def page(root: Path = ROOT) -> str:
    """The text of docs/operators.md."""
    said = claims(root)
    lines = [INTRODUCTION]
    words = {True: "yes", False: "no", None: "–"}
    for one in OPERATORS:
        kept = [words[x] for x in (one.normalised, one.equivariant, one.shift, one.scale, one.positive)]
        cells = [one.name, f"${one.formula}$", one.cost, *kept, one.source]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Functions", ""]
    lines += [f"- {one.name}: {', '.join(f'`{name}`' for name in one.functions)}" for one in OPERATORS]
    lines += ["", "## Who claims what", ""]
    for paper in sorted({paper for one in OPERATORS for paper in one.papers}):
        about = ", ".join(one.name for one in OPERATORS if paper in one.papers)
        lines += [f"### `{paper}`", "", f"On {about}.", ""]
        lines += [f"- `{slug}`: {' '.join(says.split())}" for slug, says in said.get(paper, {}).items()]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
