"""Results files made up for tests: one claim for every verdict and every odd thing a page must show, or a thousand."""

from __future__ import annotations

import copy
from typing import Any

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & \"quotes\""
FORMULAS = (
    r"\eta^\star = \frac{1}{n + d + 1 + \sigma^2}",
    r"\lVert A x - A y \rVert_2 \le L\,\lVert x - y \rVert_2",
    r"\operatorname{softmax}(z)_i = \frac{e^{z_i}}{\sum_{j=1}^{n} e^{z_j}}",
    r"\mathbb{E}\left[\ell(\hat w)\right] - \inf_{w \in \mathbb{R}^d} \ell(w) \le \frac{C d}{n}",
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="320pt" height="160pt" viewBox="0 0 320 160"><defs><clipPath id="c">'
    '<rect x="40" y="10" width="270" height="120"/></clipPath></defs><path d="M40 10V130H310" style="fill: none; '
    'stroke: #000000"/><path d="M40 120C120 110 160 30 310 20" clip-path="url(#c)" style="fill: none; stroke: #1f77b4; '
    'stroke-width: 2"/></svg>'
)


def quantity(
    name: str = "excess loss", value: Any = 0.0031, kind: str = "at_least", limit: Any = 0.0, **more: Any
) -> dict[str, Any]:
    bound = {"kind": kind, "limit": limit, "high": more.pop("high", None), "error": more.pop("error", None)}
    shape = {"margin": 0.0031, "unit": "", "interval": None, "evaluations": 120, "held": True}
    return {"name": name, "value": value, "bound": bound | {"label": more.pop("label", "")}} | shape | more


def control(name: str = "textbook step 1/n", outcome: str = "rejected", **more: Any) -> dict[str, Any]:
    rejecting = quantity(value=-0.0124, margin=-0.0124, held=False, unit="nats") if outcome == "rejected" else None
    rerun = f"pytest 'tests/claims/in_context/test_one_step_gd.py::test_it[control: {name}]' --suite-seed 0"
    base = {"name": name, "outcome": outcome, "why": "", "seconds": 0.1, "quantity": rejecting, "rerun": rerun}
    return base | {"smallest_case": {"size": "(1, 1)"} if outcome == "rejected" else None} | more


def check(name: str = "test_no_other_parameters_have_lower_loss", **more: Any) -> dict[str, Any]:
    base = {
        "name": name,
        "kind": "check",
        "level": "property",
        "scope": "",
        "says": "Random linear-attention parameters are never better than one step of gradient descent.",
        "file": "tests/claims/in_context/test_one_step_gd.py",
        "line": 44,
        "environment": 0,
        "outcome": "held",
        "why": "",
        "cases": 120,
        "seconds": 0.31,
        "rerun": f"pytest 'tests/claims/in_context/test_one_step_gd.py::{name}[claim]' --suite-seed 0",
        "quantities": [quantity(unit="nats"), quantity("relative error", 3.1e-13, "equals", 0.0, error=1e-12)],
        "tests": [],
        "counterexamples": [],
        "smallest_case": None,
        "notes": [],
        "figures": [],
        "scaled": False,
        "checkpoint": False,
        "measured": None,
        "controls": [control(), control("no noise term")],
    }
    return base | more


def claim(
    paper: str, slug: str, verdict: str | None = "supported", level: str | None = "property", **more: Any
) -> dict[str, Any]:
    recorded = {"verdict": verdict, "level": level, "measured": None} if verdict else None
    base = {
        "key": f"{paper}/{slug}",
        "paper": paper,
        "slug": slug,
        "where": "Theorem 1",
        "says": "For standard Gaussian covariates the global minimiser of the pre-training loss is one step of "
        "gradient descent with a learning rate that no other choice improves.",
        "formula": FORMULAS[0],
        "gap": "One linear head; population loss, not finite pre-training data.",
        "repair": "",
        "file": "tests/claims/in_context/test_one_step_gd.py",
        "line": 30,
        "verdict": verdict,
        "level": level,
        "why": "1 check held",
        "recorded": recorded,
        "agrees": True,
        "checks": [check()],
    }
    return base | more


def paper(key: str, title: str, authors: list[str], year: str = "2023", venue: str = "ICLR") -> dict[str, Any]:
    url = f"https://arxiv.org/abs/{year[2:]}07.03576"
    return {"key": key, "title": title, "authors": authors, "year": year, "venue": venue, "url": url}


def environment(**more: Any) -> dict[str, Any]:
    base = {
        "python": "3.11.7",
        "platform": "Linux-6.1-x86_64",
        "processor": "x86_64, 2 cores",
        "device": "cpu",
        "packages": {"numpy": "2.4.6", "scipy": "1.17.0", "torch": "2.13.0"},
        "commit": "3f2c9a0d11b24e5f9f1c",
        "dirty": False,
        "suite_seed": 0,
        "profile": "quick",
        "scale": "small",
    }
    return base | more


def results(claims: list[dict[str, Any]], papers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    base = {
        "schema": 1,
        "title": "Attest",
        "started": "2026-11-23T20:30:00+00:00",
        "seconds": 71.2,
        "command": "pytest -n auto",
        "selection": {"papers": [], "claims": [], "levels": [], "complete": True},
        "environments": [environment()],
        "alpha": {"declared": 0.003, "budget": 0.01},
        "papers": papers,
        "claims": claims,
        "problems": [],
    }
    return copy.deepcopy(base | more)


PAPERS = [
    paper(
        "mahankali2023onestep",
        "One Step of Gradient Descent is Provably the Optimal In-Context Learner with One Layer "
        "of Linear Self-Attention",
        ["Arvind Mahankali", "Tatsunori B. Hashimoto", "Tengyu Ma"],
    ),
    paper(
        "ramapuram2025sigmoid",
        "Theory, Analysis, and Best Practices for Sigmoid Self-Attention",
        ["Jason Ramapuram", "Federico Danieli", "Eeshan Dhekane", "Floris Weers", "Dan Busbridge"],
        "2025",
    ),
    paper("shazeer2020talking", "Talking-Heads Attention", ["Noam Shazeer", "Zhenzhong Lan"], "2020", "arXiv"),
]


def every_verdict() -> dict[str, Any]:
    """Three papers with one claim for each verdict, and everything a check can carry."""
    one, two, three = (entry["key"] for entry in PAPERS)
    claims = [
        claim(one, "isotropic-optimum", checks=[_rich_check(), _exact_check()], why="2 checks held"),
        claim(
            one,
            "skewed-covariance",
            "amended",
            "exact",
            where="Theorem 2, as printed",
            says="For covariates with any covariance matrix the minimiser is preconditioned gradient descent.",
            repair="If the covariance is invertible, the minimiser is preconditioned gradient descent.",
            why="false as printed; 1 check of the repair held",
            checks=[_refutation(), check("test_invertible_covariances_obey")],
        ),
        claim(
            two,
            "lipschitz-bound",
            "refuted",
            "exact",
            where="Theorem 3.2",
            formula=FORMULAS[1],
            says="Sigmoid attention is Lipschitz with a constant that does not depend on the sequence length.",
            why="1 counterexample exhibited",
            checks=[_refutation()],
        ),
        claim(
            two,
            "needs-no-warmup",
            "inconclusive",
            None,
            where="Section 5, Figure 4",
            formula="",
            says="Sigmoid attention with the bias −log n trains as stably as softmax attention.",
            why="test_the_losses_agree: 40 more seeds would decide",
            checks=[_undecided()],
        ),
        claim(
            two,
            "flash-speed",
            "not run",
            None,
            where="Table 5",
            formula="",
            says="The fused kernel is 17 % faster than softmax.",
            why="needs a GPU",
            recorded={
                "verdict": "refuted",
                "level": "benchmark",
                "measured": {"device": "NVIDIA H200", "date": "2026-11-20"},
            },
            agrees=None,
            checks=[_skipped()],
        ),
        claim(
            two,
            "memory-use",
            "not run",
            None,
            where="Table 6",
            formula="",
            says="Its memory grows linearly in the sequence length.",
            why="needs a GPU",
            recorded={"verdict": "supported", "level": "benchmark", "measured": None},
            agrees=None,
            checks=[_skipped()],
        ),
        claim(
            three,
            "mixing-helps",
            "broken",
            None,
            where="Table 1",
            formula=FORMULAS[2],
            says="Mixing heads before the softmax lowers the loss of every model of the same width.",
            why="control 'shuffled labels' of test_mixing_lowers_loss passed the check",
            recorded={"verdict": "supported", "level": "experiment", "measured": None},
            agrees=False,
            checks=[
                check("test_mixing_lowers_loss", level="experiment", controls=[control("shuffled labels", "passed")])
            ],
        ),
        claim(
            three,
            "no-verdict-yet",
            None,
            None,
            where="Section 2",
            formula=FORMULAS[3],
            says=HOSTILE,
            gap=HOSTILE,
            why="test_it_fails failed: excess loss = -0.2, must be at least 0",
            agrees=False,
            checks=[
                check(
                    "test_it_fails",
                    outcome="violated",
                    why=HOSTILE,
                    smallest_case={"logits": "[0.0, 1e9]"},
                    quantities=[quantity(value=-0.2, margin=-0.2, held=False)],
                )
            ],
        ),
    ]
    problems = [
        f"{three}/mixing-helps: broken: control 'shuffled labels' of test_mixing_lowers_loss passed the check",
        f"{three}/no-verdict-yet: no verdict: test_it_fails failed: {HOSTILE}",
    ]
    environments = [environment(), environment(device="NVIDIA H200", dirty=True, profile="full", commit=None)]
    return results(claims, PAPERS, problems=problems, environments=environments)


def _rich_check() -> dict[str, Any]:
    return check(
        quantities=[
            quantity(unit="nats", interval=[0.0029, 0.0033]),
            quantity("relative error", 3.1e-13, "equals", 0.0, error=1e-12, margin=6.9e-13),
            quantity("attained share", 0.41428571428571426, "within", 0.25, high=0.75, exact="29/70", margin=0.164),
            quantity("ratio to the bound", 0.97, "at_most", 1.0, margin=0.03),
            quantity("spread", 2.0e-7, "less_than", 3.5e-6, label="spread of softmax", margin=3.3e-6),
            quantity("norm", 12.0, "at_least", 4.0, margin=8.0),
            quantity("largest logit", 5.0, "at_most", "Infinity", margin="Infinity"),
        ],
        notes=["Equality is attained at the optimum: the bound is not vacuous."],
        figures=[{"title": "Loss against step size", "caption": "The minimum lies at the claimed step.", "svg": SVG}],
    )


def _exact_check() -> dict[str, Any]:
    gain = {
        "name": "gain",
        "test": "sign test, one-sided",
        "statistic": 480,
        "samples": 500,
        "p": 1e-90,
        "alpha": 0.001,
        "held": True,
    }
    return check(
        "test_the_gradient_vanishes_there",
        level="statistical",
        scope="d = 1, 2, 3",
        tests=[gain],
        cases=3,
        quantities=[],
    )


def _refutation() -> dict[str, Any]:
    example = {
        "description": "A covariance that is not invertible: two minimisers.",
        "values": {"n": "2", "d": "1", "Λ": "[[0]]"},
    }
    return check(
        "test_a_singular_covariance_has_two_minimisers",
        kind="refutation",
        level="exact",
        counterexamples=[example],
        says="Exhibits two parameter settings with the same loss.",
        cases=1,
        quantities=[quantity("distance of the two minimisers", 2.0, "at_least", 1.0, margin=1.0)],
        figures=[{"title": "Two minimisers", "caption": "", "svg": SVG}],
    )


def _undecided() -> dict[str, Any]:
    unsure = {
        "name": "loss difference",
        "test": "equivalence, t interval",
        "statistic": 1.2,
        "samples": 10,
        "p": 0.12,
        "alpha": 0.001,
        "held": None,
    }
    return check(
        "test_the_losses_agree",
        level="experiment",
        outcome="inconclusive",
        why="40 more seeds would decide",
        tests=[unsure],
        quantities=[],
    )


def _skipped() -> dict[str, Any]:
    return check(
        "test_the_kernel_is_faster",
        level="benchmark",
        outcome="not run",
        why="needs a GPU",
        cases=0,
        seconds=0.0,
        quantities=[],
        controls=[control("slower kernel", "not run", why="needs a GPU")],
    )


def many(amount: int = 1000) -> dict[str, Any]:
    """`amount` claims of fifty papers, with two checks and two controls each; no two formulas are the same."""
    papers = [
        paper(f"author{number}paper", f"Paper number {number}", ["A. Author", "B. Writer"]) for number in range(50)
    ]
    verdicts: list[str | None] = ["supported"] * 7 + ["refuted", "amended", "inconclusive"]
    claims = [
        claim(
            f"author{number % 50}paper",
            f"claim-{number}",
            verdicts[number // 50 % 10],
            formula=f"{FORMULAS[number % 4]} + {number}",
            checks=[check("test_the_first_part_holds"), check("test_the_second_part_holds", level="exact")],
        )
        for number in range(amount)
    ]
    return results(sorted(claims, key=lambda one: int(one["paper"][6:-5])), papers)
