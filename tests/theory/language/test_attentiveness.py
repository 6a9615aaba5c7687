"""The arithmetic of answer choices, on cases small enough to do by hand."""

from fractions import Fraction

import pytest

from theory.language import attentiveness as theory

HALVES = (Fraction(1, 2), Fraction(1, 2))


def test_weights_become_shares_of_their_sum():
    assert theory.distribution([1, 0, Fraction(3)]) == (Fraction(1, 4), 0, Fraction(3, 4))


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1]])
def test_weights_without_a_distribution_are_refused(weights):
    with pytest.raises(ValueError, match=r"^weights must be at least 0 and one of them positive, not \["):
        theory.distribution(weights)


def test_mass_is_the_sum_over_choices():
    assert theory.mass((Fraction(0), Fraction(1, 3), Fraction(1, 6))) == Fraction(1, 2)


@pytest.mark.parametrize("choices", [(), (Fraction(1),), (Fraction(1), Fraction(-1, 9))])
def test_mass_needs_two_choices_and_no_negative_one(choices):
    with pytest.raises(ValueError, match="two or more different choices"):
        theory.mass(choices)


def test_synonyms_count_for_their_owner_only():
    choices, others = (Fraction(1, 8), Fraction(2, 8)), (Fraction(1, 8), Fraction(3, 8), Fraction(1, 8))
    assert theory.concept_masses(choices, others, (1, None, 0)) == (Fraction(2, 8), Fraction(3, 8))
    assert theory.competition(choices, others, (1, None, 0)) == Fraction(2, 8)
    assert theory.competition(choices, others, (1, 1, 0)) == Fraction(5, 8)


def test_owners_must_match_the_other_strings():
    with pytest.raises(ValueError, match="zip"):
        theory.concept_masses(HALVES, (Fraction(0),), ())


def test_assignments_are_all_maps_to_a_choice_or_to_none():
    assert set(theory.assignments(2, 2)) == {(a, b) for a in (None, 0, 1) for b in (None, 0, 1)}
    assert len(list(theory.assignments(2, 2))) == 9


def test_a_shared_top_score_predicts_nothing():
    assert theory.prediction((Fraction(1), Fraction(2), Fraction(0))) == 1
    assert theory.prediction((Fraction(2), Fraction(1), Fraction(2))) is None


def test_the_lead_is_over_the_second_largest():
    assert theory.lead((Fraction(1, 8), Fraction(4, 8), Fraction(3, 8))) == Fraction(1, 8)


@pytest.mark.parametrize(
    ("weights", "others", "expected"),
    [
        ((6, 1), 4, True),
        ((6, 2), 4, False),  # lead 4/12 = remainder: at equality a tie is possible
        ((5, 3), 1, True),
        ((4, 3, 2), 0, True),
        ((2, 2), 0, False),
        ((2, 0), 3, False),
        ((3, 2, 1, 1), 1, False),
    ],
)
def test_both_forms_of_the_criterion_agree(weights, others, expected):
    choices = theory.distribution([*weights, others])[: len(weights)]
    assert theory.resolved(choices) is expected
    assert theory.resolved_by_sum(choices) is expected


def test_the_smallest_lead_gives_the_remainder_to_the_runner_up():
    assert theory.smallest_lead((Fraction(2, 10), Fraction(5, 10)), (Fraction(1, 10), Fraction(2, 10))) == Fraction(0)
    assert theory.smallest_lead((Fraction(4, 8), Fraction(3, 8), Fraction(1, 8)), ()) == Fraction(1, 8)


MODEL = {
    (): {"a": Fraction(2, 3), "b": Fraction(1, 3)},
    ("a",): {"b": Fraction(1, 4), theory.END: Fraction(3, 4)},
    ("a", "b"): {theory.END: Fraction(1)},
}


def test_a_prefix_ignores_how_the_string_ends():
    assert theory.prefix_probability(MODEL, ("a",)) == Fraction(2, 3)
    assert theory.complete_probability(MODEL, ("a",)) == Fraction(1, 2)
    assert theory.complete_probability(MODEL, ("a", "b")) == Fraction(1, 6)
    assert theory.prefix_probability(MODEL, ("c",)) == 0


def test_choices_are_prefix_free_when_none_begins_another():
    assert theory.prefix_free([("a", "b"), ("b",), ("a", "c")])
    assert not theory.prefix_free([("a", "b"), ("c",), ("a",)])
    assert not theory.prefix_free([("a",), ("a", "b")])


def test_a_verbatim_example_shifts_belief_to_the_verbatim_style():
    verbatim = (Fraction(1, 2), Fraction(1, 5))
    assert theory.posterior(HALVES, verbatim) == (Fraction(5, 7), Fraction(2, 7))
    assert theory.mass_after(HALVES, verbatim, 0) == Fraction(7, 20)
    assert theory.mass_after(HALVES, verbatim, 1) == Fraction(29, 70)
    assert theory.mass_after(HALVES, verbatim, 2) == Fraction(133, 290)
    assert theory.variance(HALVES, verbatim) == Fraction(9, 400)


def test_an_example_of_any_likelihood_gains_the_covariance_over_the_mean():
    """A right and verbatim example can lower PMA: here the verbatim style is seldom right."""
    verbatim, right = (Fraction(1), Fraction(1, 2)), (Fraction(1, 10), Fraction(1))
    both = [a * r for a, r in zip(verbatim, right, strict=True)]
    gain = theory.expectation(theory.posterior(HALVES, both), verbatim) - theory.expectation(HALVES, verbatim)
    product = theory.expectation(HALVES, [a * b for a, b in zip(verbatim, both, strict=True)])
    covariance = product - theory.expectation(HALVES, verbatim) * theory.expectation(HALVES, both)
    assert gain == covariance / theory.expectation(HALVES, both) < 0


def test_an_impossible_example_is_refused():
    with pytest.raises(ValueError, match="one of them positive"):
        theory.posterior(HALVES, (Fraction(0), Fraction(0)))


def test_styles_and_values_must_match():
    with pytest.raises(ValueError, match="zip"):
        theory.expectation(HALVES, (Fraction(1),))
    with pytest.raises(ValueError, match="zip"):
        theory.posterior(HALVES, (Fraction(1),))


def test_pmi_divides_and_keeps_its_order_under_a_common_scale():
    choices, priors = (Fraction(3, 5), Fraction(2, 5)), (Fraction(3, 4), Fraction(1, 4))
    assert theory.pmi_scores(choices, priors) == (Fraction(4, 5), Fraction(8, 5))
    assert theory.pmi_scores(choices, [p / 7 for p in priors]) == (Fraction(28, 5), Fraction(56, 5))
    assert theory.prediction(theory.pmi_scores(choices, HALVES)) == theory.prediction(choices)


@pytest.mark.parametrize("priors", [(Fraction(0), Fraction(1)), (Fraction(1), Fraction(-1))])
def test_pmi_needs_positive_priors(priors):
    with pytest.raises(ValueError, match="every prior must be positive"):
        theory.pmi_scores(HALVES, priors)


def test_pmi_needs_a_prior_for_each_choice():
    with pytest.raises(ValueError, match="zip"):
        theory.pmi_scores(HALVES, (Fraction(1),))


def test_the_bound_adds_up_for_normalised_probabilities_only():
    assert theory.bound_residual() == 0
    assert theory.bound_residual(2) == -1


def test_each_slack_enters_the_lead_once():
    ones = {"excess": 1, "behind": 1, "gained": 1, "unused": 1, "second": 0}
    assert theory.lead_coefficients(lambda remainder: remainder) == ones | {"remainder": 0}
    assert theory.lead_coefficients(lambda remainder: remainder / 2) == ones | {"remainder": Fraction(-1, 2)}


def test_the_gain_is_a_formula_in_two_moments():
    assert theory.gain_residual(lambda mean, variance: variance / mean) == 0
    assert theory.gain_residual(lambda mean, variance: variance) != 0
    assert theory.gain_residual(lambda mean, variance: 0 * mean) != 0
