"""Probability mass on answer choices and surface-form competition, in rational arithmetic.

Source: Wiegreffe, Finlayson, Tafjord, Clark and Sabharwal, "Increasing Probability Mass on Answer Choices Does Not
Always Improve Accuracy", EMNLP 2023 (first titled "Attentiveness to Answer Choices Doesn't Always Entail High QA
Accuracy"), arXiv 2305.14596.

Relative to the paper: `choices` are P(l | x) for the K answer choices l, `mass(choices)` is their PMA (the first
version's attentiveness), `others` are the probabilities of all further strings, and `owners` says to which choice each
of those is a synonym. All numbers are `Fraction`; a float converts exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import Any

END = "</s>"
"""The token that ends a string."""

Tokens = tuple[str, ...]
Rational = int | Fraction
Index = int | None
"""Which of the choices, or None of them."""
LanguageModel = Mapping[Tokens, Mapping[str, Fraction]]
"""What has been written so far -> probability of each next token."""


def distribution(weights: Sequence[Rational]) -> tuple[Fraction, ...]:
    """Weights divided by their sum.

    Raises:
        ValueError: a weight is negative, or none is positive.
    """
    if min(weights, default=0) < 0 or not any(weights):
        raise ValueError(f"weights must be at least 0 and one of them positive, not {list(weights)}")
    total = sum(weights)
    return tuple(Fraction(weight) / total for weight in weights)


# -- mass on the choices, and what can compete with them ---------------------------------------------------------------


def mass(choices: Sequence[Fraction]) -> Fraction:
    """Probability mass on the answer choices, PMA.

    Raises:
        ValueError: fewer than two choices, or a negative probability.
    """
    if len(choices) < 2 or min(choices) < 0:
        raise ValueError(f"give the probabilities, at least 0, of two or more different choices, not {list(choices)}")
    return sum(choices, Fraction(0))


def concept_masses(
    choices: Sequence[Fraction], others: Sequence[Fraction], owners: Sequence[Index]
) -> tuple[Fraction, ...]:
    """C(l): the probability of each choice together with its synonyms.

    Args:
        choices: (K,) probabilities of the choices.
        others: (M,) probabilities of further strings.
        owners: (M,) index of the choice whose synonym each further string is, or None. One owner each: the synonym
            classes are disjoint.
    """
    return tuple(
        choice + sum((p for p, owner in zip(others, owners, strict=True) if owner == index), Fraction(0))
        for index, choice in enumerate(choices)
    )


def competition(choices: Sequence[Fraction], others: Sequence[Fraction], owners: Sequence[Index]) -> Fraction:
    """Surface-form competition SFC: the mass on synonyms of the choices. Arguments as in `concept_masses`."""
    return sum(concept_masses(choices, others, owners), Fraction(0)) - mass(choices)


def assignments(choices: int, others: int) -> Iterator[tuple[Index, ...]]:
    """All (choices + 1)^others ways to make further strings synonyms of the choices, or of none."""
    return product((None, *range(choices)), repeat=others)


def prediction(scores: Sequence[Fraction]) -> Index:
    """Index of the highest score; None when it is shared."""
    top = max(scores)
    return scores.index(top) if scores.count(top) == 1 else None


def lead(choices: Sequence[Fraction]) -> Fraction:
    """P_(1) - P_(2): the top choice's probability minus the runner-up's."""
    first, second, *_ = sorted(choices, reverse=True)
    return first - second


def resolved(choices: Sequence[Fraction]) -> bool:
    """Is the lead larger than 1 - PMA, so that no synonyms can change the prediction?"""
    return lead(choices) > 1 - mass(choices)


def resolved_by_sum(choices: Sequence[Fraction]) -> bool:
    """The same condition as 2 P_(1) + P_(3) + ... + P_(K) > 1; for K = 2 it says P_(1) > 1/2."""
    return max(choices) + mass(choices) - sorted(choices)[-2] > 1


def smallest_lead(choices: Sequence[Fraction], others: Sequence[Fraction]) -> Fraction:
    """How far the top choice's concept mass stays above all others in the worst assignment of synonyms.

    Negative when some assignment overturns the prediction. By exhaustion: (K + 1)^M assignments.
    """
    top = choices.index(max(choices))
    worlds = (concept_masses(choices, others, owners) for owners in assignments(len(choices), len(others)))
    return min(concepts[top] - max(concepts[:top] + concepts[top + 1 :]) for concepts in worlds)


# -- strings made of tokens --------------------------------------------------------------------------------------------


def prefix_probability(model: LanguageModel, tokens: Tokens) -> Fraction:
    """Probability that the model's output *begins* with these tokens: what the released code computes."""
    probability = Fraction(1)
    for length, token in enumerate(tokens):
        probability *= model[tokens[:length]].get(token, Fraction(0))
    return probability


def complete_probability(model: LanguageModel, tokens: Tokens) -> Fraction:
    """Probability that the model's output *is* these tokens: the end token counts."""
    return prefix_probability(model, (*tokens, END))


def begins(tokens: Tokens, start: Tokens) -> bool:
    """Do the tokens begin with `start`?"""
    return tokens[: len(start)] == start


def prefix_free(choices: Sequence[Tokens]) -> bool:
    """Is no choice the beginning of another?"""
    return not any(begins(one, other) or begins(other, one) for one, other in combinations(choices, 2))


# -- documents that mix styles -----------------------------------------------------------------------------------------


def posterior(prior: Sequence[Fraction], likelihood: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Probability of each style after an example that has this likelihood under each.

    Raises:
        ValueError: the example is impossible under every style of positive prior (from `distribution`).
    """
    return distribution([p * chance for p, chance in zip(prior, likelihood, strict=True)])


def expectation(styles: Sequence[Fraction], values: Sequence[Fraction]) -> Fraction:
    """Mean of a value that depends on the style."""
    return sum((p * value for p, value in zip(styles, values, strict=True)), Fraction(0))


def mass_after(prior: Sequence[Fraction], verbatim: Sequence[Fraction], examples: int) -> Fraction:
    """PMA of the Bayes-optimal predictor after this many examples that were answered with a listed choice.

    Args:
        prior: (Z,) share of each style among the documents.
        verbatim: (Z,) probability a_z that a document of style z answers with a listed choice.
        examples: number of such examples before the question.
    """
    styles = tuple(prior)
    for _ in range(examples):
        styles = posterior(styles, verbatim)
    return expectation(styles, verbatim)


def variance(prior: Sequence[Fraction], values: Sequence[Fraction]) -> Fraction:
    """Variance of a value that depends on the style."""
    mean = expectation(prior, values)
    return expectation(prior, [(value - mean) ** 2 for value in values])


# -- dividing by the prior of each choice ------------------------------------------------------------------------------


def pmi_scores(choices: Sequence[Fraction], priors: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """PMI-DC: P(l | x) / P(l | domain prompt).

    Raises:
        ValueError: a prior is not positive.
    """
    if min(priors) <= 0:
        raise ValueError(f"every prior must be positive, not {list(priors)}; give a choice that has none a small one")
    return tuple(choice / prior for choice, prior in zip(choices, priors, strict=True))


# -- steps of proofs, for any number of strings, choices or styles -----------------------------------------------------


def bound_residual(total: Any = 1) -> Any:
    """(1 - PMA - SFC) minus the sum over all strings of (1 - m) p; 0 proves that the two agree.

    A string of probability p lies in m synonym classes, so that PMA + SFC, the sum of all C(l), is the sum of m p over
    all strings. Of that sum only its linearity is used.

    Args:
        total: the sum of all probabilities.
    """
    from sympy import Function, expand, symbols

    p, m = symbols("p m")
    over_strings = Function("over_strings")

    def summed(summand: Any) -> Any:
        """The sum over all strings, split at the plus signs; that of p alone is `total`."""
        terms = expand(summand).as_coefficients_dict().items()
        return sum(factor * (total if term == p else over_strings(term)) for term, factor in terms)

    return expand(1 - summed(m * p) - summed((1 - m) * p))


def lead_coefficients(required: Callable[[Any], Any]) -> dict[str, Fraction]:
    """C(l_1) - C(l_j) as a linear form in slack variables, each at least 0, `excess` positive.

    It is positive for all their values exactly when no coefficient is negative and that of `excess` is positive.

    Args:
        required: the lead that is asked for, from the remainder 1 - PMA: P_(1) - P_(2) = required(1 - PMA) + excess.
    """
    from sympy import Poly, symbols

    slacks = remainder, excess, behind, gained, unused = symbols("remainder excess behind gained unused")
    second = symbols("second")
    top = second + required(remainder) + excess + gained  # C(l_1): its synonyms add `gained`
    rival = second - behind + remainder - unused  # C(l_j): of the remainder, `unused` is not a synonym of l_j
    form = Poly(top - rival, *slacks, second)
    return {str(one): Fraction(str(form.coeff_monomial(one))) for one in (*slacks, second)}


def gain_residual(gain: Callable[[Any, Any], Any]) -> Any:
    """PMA_1 - PMA_0 minus a formula for it, from the moments E[a] and E[a^2] over any number of styles.

    The variance is not taken as known: E[(a - E[a])^2] is expanded by linearity of the mean.

    Args:
        gain: the formula, from E[a] and the variance of a.
    """
    from sympy import Poly, simplify, symbols

    a, mean, square = symbols("a mean square")
    spread = Poly((a - mean) ** 2, a)
    variance = sum(spread.coeff_monomial(a**power) * moment for power, moment in enumerate((1, mean, square)))
    return simplify((square / mean - mean) - gain(mean, variance))
