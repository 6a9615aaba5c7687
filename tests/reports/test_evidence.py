"""What the evidence records, what it refuses, and how numbers travel."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

from reports.evidence import Evidence, Inconclusive, NotANumber, Violation
from reports.quantity import scalars, to_json_number


@pytest.mark.parametrize(
    ("bound", "good", "bad", "margin"),
    [
        ({"at_least": 2}, 3, 1, 1),
        ({"at_most": 2}, 1, 3, 1),
        ({"less_than": 2}, 1, 2, 1),
        ({"less_than": ("ridge", 2)}, 1, 2, 1),
        ({"equals": 2, "error": 1}, Fraction(5, 2), 4, Fraction(1, 2)),
        ({"within": (1, 4)}, 3, 5, 1),
        ({"within": (1, 4)}, 3, 0, 1),
    ],
)
def test_each_bound_accepts_records_its_margin_and_refuses(bound, good, bad, margin):
    evidence = Evidence()
    evidence.expect("x", good, **bound)
    assert evidence.quantities["x"].margin == margin
    assert evidence.violated is None
    with pytest.raises(Violation, match="x = "):
        evidence.expect("x", bad, **bound)
    assert evidence.violated.value == bad
    assert not evidence.quantities["x"].held


@pytest.mark.parametrize("bound", [{"at_least": 2}, {"at_most": 2}, {"equals": 2, "error": 0}, {"within": (2, 2)}])
def test_a_value_on_the_bound_meets_it_unless_the_bound_is_strict(bound):
    Evidence().expect("x", 2, **bound)
    with pytest.raises(Violation):
        Evidence().expect("x", 2, less_than=2)


def test_the_closest_call_is_kept_and_evaluations_are_counted():
    evidence = Evidence()
    for value in (5, 3, 4):
        evidence.expect("x", value, at_least=2)
    assert evidence.quantities["x"].value == 3
    assert evidence.quantities["x"].evaluations == 3
    assert evidence.cases == 3


def test_of_an_array_the_worst_element_counts():
    evidence = Evidence()
    evidence.expect("a", np.array([[1.0, 5.0], [2.0, 3.0]]), at_least=0.5)
    assert evidence.quantities["a"].value == 1.0
    evidence.expect("b", torch.tensor([1.0, 2.0], requires_grad=True), equals=np.array([1.0, 2.5]), error=0.6)
    assert evidence.quantities["b"].value == 2.0
    with pytest.raises(TypeError, match="3 values against bounds for 2"):
        evidence.expect("c", [1, 2, 3], equals=[1, 2], error=1)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        np.array([1.0, np.nan]),
        torch.tensor(math.nan),
        pytest.param(sympy.nan, id="sympy"),
        1j,
        "many",
        None,
        [],
    ],
)
def test_what_is_no_number_never_passes_and_is_no_violation(value):
    with pytest.raises(NotANumber):
        Evidence().expect("x", value, at_most=1)
    with pytest.raises(NotANumber):
        Evidence().expect("x", 1, at_most=value)


def test_infinity_against_infinity_is_not_a_number():
    with pytest.raises(NotANumber, match="cannot be compared"):
        Evidence().expect("x", math.inf, at_most=math.inf)


@pytest.mark.parametrize(
    "bound",
    [
        {},
        {"at_least": 1, "at_most": 2},
        {"equals": 1},
        {"at_least": 1, "error": 1},
        {"equals": 1, "error": -1},
        {"is": 1},
    ],
)
def test_a_bound_must_be_exactly_one_and_equality_has_a_budget(bound):
    with pytest.raises(TypeError, match=r"exactly one|error budget"):
        Evidence().expect("x", 1, **bound)


def test_one_name_has_one_kind_of_bound():
    evidence = Evidence()
    evidence.expect("x", 1, at_least=0)
    with pytest.raises(TypeError, match="two kinds of bound"):
        evidence.expect("x", 1, at_most=2)


@pytest.mark.parametrize("fact", [True, np.True_, sympy.true])
def test_facts_are_true(fact):
    Evidence().true("fact", fact)


@pytest.mark.parametrize("fact", [False, np.False_, sympy.false])
def test_false_facts_violate(fact):
    with pytest.raises(Violation):
        Evidence().true("fact", fact)


@pytest.mark.parametrize("fact", [1, None, "yes", np.array([True, False]), sympy.Symbol("x") > 0])
def test_what_is_neither_true_nor_false_is_no_fact(fact):
    with pytest.raises(TypeError, match="must be True or False"):
        Evidence().true("fact", fact)


def test_rational_numbers_stay_exact():
    evidence = Evidence()
    third = sympy.Rational(1, 3)
    evidence.expect("x", third, equals=Fraction(1, 3), error=0)
    assert evidence.to_json()["quantities"][0]["exact"] == "1/3"
    with pytest.raises(Violation):
        Evidence().expect("x", third, equals=1 / 3, error=0)


def test_all_that_is_recorded_travels_as_json():
    evidence = Evidence()
    evidence.expect("x", np.float32(1), less_than=("∞", math.inf), unit="nats", interval=(np.float64(0), 2))
    evidence.expect("huge", Fraction(10) ** 400, at_least=0)
    evidence.counterexample("matrix", A=np.eye(1), d=2, p=(Fraction(1, 3), [Fraction(1, 2)], {"a": Fraction(1)}))
    evidence.note("once")
    evidence.note("once")
    text = json.dumps(evidence.to_json(), allow_nan=False)
    found = json.loads(text)
    assert found["quantities"][0]["bound"] == {
        "kind": "less_than", "limit": "Infinity", "high": None, "error": None, "label": "∞",
    }  # fmt: skip
    assert found["quantities"][0]["interval"] == [0, 2]
    assert found["quantities"][1]["value"] == "Infinity"
    assert found["counterexamples"][0]["values"] == {"A": "[[1.]]", "d": "2", "p": "(1/3, [1/2], {a: 1})"}
    assert found["notes"] == ["once"]


def test_a_figure_is_kept_as_svg():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().plot([0, 1], [0, 1])
    evidence = Evidence()
    evidence.figure("line", figure, caption="A line.")
    [kept] = evidence.to_json()["figures"]
    assert kept["svg"].startswith("<svg")
    assert (kept["title"], kept["caption"]) == ("line", "A line.")


def test_undecided_ends_the_check_with_what_it_needs():
    with pytest.raises(Inconclusive, match="more seeds"):
        Evidence().inconclusive(needs="more seeds")


def test_a_statistical_test_may_not_be_repeated_under_hypothesis():
    evidence = Evidence()
    evidence.begin_example({})
    with pytest.raises(TypeError, match="repeated until it fails"):
        evidence.sign_test("wins", 9, 10, alpha=0.1)


@pytest.mark.parametrize(
    ("value", "travels_as"),
    [
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**60, float(2**60)),
        (3, 3),
        (None, None),
        (Fraction(1, 2), 0.5),
    ],
)
def test_numbers_travel_as_json_numbers_or_named_infinities(value, travels_as):
    assert to_json_number(value) == travels_as


def test_scalars_of_nested_arrays_are_read_row_by_row():
    assert scalars(np.arange(4).reshape(2, 2)) == [0, 1, 2, 3]
    assert scalars(torch.tensor([[1.5]], dtype=torch.bfloat16)) == [1.5]
