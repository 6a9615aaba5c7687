"""Each entry of the table of operators, held against the operators themselves."""

import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.catalogue import load
from theory.operators import attention
from theory.operators.table import OPERATORS, PAGE, ROOT, claims, page

HELPERS = {
    "scores", "transpose", "masked", "total", "normalised", "logistic", "softplus", "relu_map", "elu_plus_one",
    "exp_map", "focused", "unit",
}  # fmt: skip
"""What operators are made of."""
NAMES = [one.name for one in OPERATORS]
every = pytest.mark.parametrize("row", OPERATORS, ids=NAMES)
PROPERTIES = ("normalised", "equivariant", "shift", "scale", "positive")


def case(seed, magnitude=0):
    """As many random queries as keys, 2 or more; a number to add, a factor and a permutation."""
    draw = np.random.default_rng(seed)
    n, d = draw.integers(2, 6, 2)
    q, k = 10.0**magnitude * draw.standard_normal((n, d)), draw.standard_normal((n, d))
    return SimpleNamespace(q=q, k=k, added=draw.normal(), factor=draw.uniform(1.5, 3), order=np.roll(np.arange(n), 1))


def violation(row, what, given):
    """How far the property is missed, in units of what rounding explains; at most 1 where it holds."""
    weights = row.weights(given.q, given.k, 0.0)
    # The ill-conditioned step is exp(s), relative error |s| eps; norms and means lose another factor of m.
    size = 1 + abs(given.q).max() * abs(given.k).max() * given.q.shape[-1]
    budget = 1e3 * np.finfo(float).eps * size * (1 + abs(weights).max()) * weights.shape[-1]
    missed = {
        "normalised": lambda: abs(weights.sum(axis=-1) - 1).max(),
        "equivariant": lambda: abs(row.weights(given.q, given.k[given.order], 0.0) - weights[:, given.order]).max(),
        "shift": lambda: abs(row.weights(given.q, given.k, given.added) - weights).max(),
        "scale": lambda: abs(row.weights(given.factor * given.q, given.k, 0.0) - weights).max(),
        "positive": lambda: max(0.0, -weights.min()),
    }[what]()
    return missed / budget


@every
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), magnitude=st.sampled_from([-2, 0, 1]))
def test_what_is_marked_yes_holds_on_random_inputs(row, seed, magnitude):
    given = case(seed, magnitude)
    assert row.weights(given.q, given.k, 0.0).shape == (len(given.q), len(given.k))
    for what in PROPERTIES:
        if getattr(row, what):
            assert violation(row, what, given) <= 1, what


@every
def test_what_is_marked_no_has_a_counterexample(row):
    """Sixty random inputs, some with large, some with small and some with vanishing queries."""
    given = [case(seed, magnitude) for seed in range(20) for magnitude in (-2, 0, 1)]
    given += [SimpleNamespace(**{**vars(one), "q": 0 * one.q}) for one in given[:2]]
    for what in PROPERTIES:
        if getattr(row, what) is False:
            assert max(violation(row, what, one) for one in given) > 1e6, what


def multiplications(row, n, m, d=4):
    """Operations of the products of matrices in an output, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(size, d, generator=draw, dtype=torch.float64) for size in (n, m, m))
    output = row.output or (lambda q, k, v: row.weights(q, k, 0.0) @ v)
    counter = FlopCounterMode(display=False)
    with counter:
        output(q, k, v)
    return counter.get_total_flops()


@pytest.mark.parametrize("row", [one for one in OPERATORS if one.cost != "entries of x"], ids=lambda one: one.name)
def test_doubling_queries_and_keys_costs_what_the_table_says(row):
    """Twice as much where the cost is n + m, four times where it is n m, and between for parameters of positions."""
    ratio = multiplications(row, 256, 256) / multiplications(row, 128, 128)
    assert abs(ratio - {"n + m": 2, "n m": 4}[row.cost]) < 0.5


@pytest.mark.parametrize("row", [one for one in OPERATORS if one.cost == "entries of x"], ids=lambda one: one.name)
def test_gates_multiply_no_matrices(row):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    counter = FlopCounterMode(display=False)
    with counter:
        if row.functions == ("gaussian_adaptive",):
            x * attention.gaussian_adaptive(x, torch.tensor([0.3, -0.5]), torch.tensor([1.0, 2.0]))
        else:
            x * attention.gaussian_adaptive_paper(x, 0.3, 1.0)
    assert counter.get_total_flops() == 0


@pytest.mark.parametrize("row", [one for one in OPERATORS if one.output], ids=lambda one: one.name)
def test_the_shorter_output_is_the_same_output(row):
    given = case(3)
    v = np.random.default_rng(4).standard_normal((len(given.k), 3))
    np.testing.assert_allclose(row.output(given.q, given.k, v), row.weights(given.q, given.k, 0.0) @ v, atol=1e-12)


def test_every_operator_is_in_the_table():
    public = {
        name
        for name, one in inspect.getmembers(attention, inspect.isfunction)
        if one.__module__ == attention.__name__ and not name.startswith("_")
    }
    assert {name for row in OPERATORS for name in row.functions} == public - HELPERS
    assert len(set(NAMES)) == len(NAMES)


# -- Limits -----------------------------------------------------------------------------------------------------------


def test_softmax_and_taylor_become_uniform_as_the_scale_vanishes():
    given = case(0)
    for operator in (attention.softmax, attention.taylor):
        np.testing.assert_allclose(
            operator(given.q, given.k, scale=1e-9), attention.uniform(given.q, given.k), atol=1e-7
        )


def test_softmax_becomes_the_largest_score_as_the_scale_grows():
    given = case(1)
    np.testing.assert_allclose(
        attention.softmax(given.q, given.k, scale=1e6),
        np.eye(len(given.k))[(given.q @ given.k.T).argmax(-1)],
        atol=1e-9,
    )


def test_mala_becomes_linear_attention_as_its_scale_vanishes():
    given = case(2)
    np.testing.assert_allclose(
        attention.mala(given.q, given.k, scale=1e-9), attention.linear(given.q, given.k), atol=1e-7
    )


def test_reweighting_becomes_the_largest_weight_as_the_power_grows():
    weights = np.array([[0.5, 0.2, 0.2, 0.05, 0.05], [0.1, 0.3, 0.15, 0.4, 0.05]])
    np.testing.assert_allclose(attention.reweight(weights, 500), np.eye(5)[[0, 3]], atol=1e-12)


def test_sigmoid_becomes_the_exponential_as_its_offset_falls():
    given = case(3)
    exponential = attention.elementwise(given.q, given.k, positive="exp", normalise="none")
    # The sigmoid's absolute error is half an ulp of 1, here divided by e^-15; the next term is e^(s - 15).
    found = attention.sigmoid(given.q, given.k, offset=-15.0) * np.exp(15.0)
    np.testing.assert_allclose(found, exponential, rtol=2 * exponential.max() * np.exp(-15), atol=1e-9)


def test_wide_gaussians_become_uniform():
    x = np.random.default_rng(0).standard_normal((3, 5))
    found = attention.gaussian_adaptive(x, np.array([0.3]), np.array([1e5]))
    np.testing.assert_allclose(found, np.full_like(x, 1 / 5), atol=1e-9)


# -- Who claims what --------------------------------------------------------------------------------------------------


def test_papers_are_in_the_bibliography_and_have_claims():
    papers = {paper for row in OPERATORS for paper in row.papers}
    assert papers <= set(re.findall(r"^@\w+\{(\S+),", (ROOT / "references.bib").read_text("utf-8"), re.MULTILINE))
    assert papers <= set(claims(ROOT))


def test_claims_read_from_the_source_are_those_of_the_catalogue():
    """A `says` or slug that is put together by code would not show in the source."""
    found = claims(ROOT)
    declared = {}
    for claim in load(ROOT):
        declared.setdefault(claim.paper, {})[claim.slug] = claim.says
    for paper in {paper for row in OPERATORS for paper in row.papers}:
        assert found[paper] == declared[paper]


def test_the_page_is_what_the_module_writes():
    """`python -m theory.operators.table` writes it anew."""
    assert PAGE.read_text("utf-8") == page()
