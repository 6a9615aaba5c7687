"""Dividing by the prior of each choice (Wiegreffe et al., EMNLP 2023).

What the paper says. PMI-DC, the probability of a choice divided by its probability under a prompt without the question,
is meant to undo surface-form competition; for instruction-tuned models it helps less, and can hurt.

Notation. As in test_attentiveness.py; C(l) is the mass of a choice's concept, s_l the choice's share of it.

Scope. Existence in both directions, by construction; the paper's models are not rerun.
"""

from fractions import Fraction

from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.language import attentiveness as theory

PAPER = "wiegreffe2023increasing"


harm = Claim(
    paper=PAPER, slug="normalising-can-hurt", where="abstract, Figure 5",
    says="PMI-DC can turn a right prediction into a wrong one even where no mass lies outside the choices.",
    formula=r"\mathrm{PMA} = 1, \quad \arg\max_{\ell} \frac{P(\ell \mid x)}{P(\ell \mid x_{\mathrm{dom}})} "
    r"\neq \arg\max_{\ell} P(\ell \mid x)",
    gap="Existence. That it happens to instruction-tuned models in particular is the paper's measurement.",
)  # fmt: skip


@harm.check("exact", controls={
    "equal priors": {"priors": (Fraction(1, 2), Fraction(1, 2))},
    "priors that say the same as the question": {"priors": (Fraction(1, 4), Fraction(3, 4))},
})  # fmt: skip
def test_a_certain_prediction_is_overturned_by_priors(evidence, *, priors=(Fraction(3, 4), Fraction(1, 4))):
    """P = (0.6, 0.4) is resolved, with no mass elsewhere; priors (0.75, 0.25) give ratios (0.8, 1.6)."""
    choices = (Fraction(3, 5), Fraction(2, 5))
    first, second = theory.pmi_scores(choices, priors)
    evidence.expect("PMA", theory.mass(choices), equals=1, error=0)
    evidence.true("resolved", theory.resolved(choices))
    evidence.expect("PMI-DC of the right choice minus the other's", first - second, less_than=0)


undone = Claim(
    paper=PAPER, slug="normalising-undoes-competition",
    where="premise of PMI-DC (Holtzman et al. 2021), whose use the paper examines",
    says="Dividing by the prior of each choice gives the prediction by concept mass, whatever share of its concept "
    "each choice has.",
    formula=r"\arg\max_{\ell} \frac{P(\ell \mid x)}{P(\ell \mid x_{\mathrm{dom}})} = \arg\max_{\ell} C(\ell \mid x)",
    gap="The repair needs priors that are equal over concepts, too. Whether real shares keep is not measured.",
    repair="It does if each choice has the same share of its concept under the question and under the domain prompt, "
    "and that prompt favours no concept.",
)  # fmt: skip


@undone.refutation("exact", controls={"a share that stays": {"share": Fraction(3, 10)}})
def test_a_share_that_changes_with_the_question_misleads(evidence, *, share=Fraction(9, 10)):
    """Concepts (0.6, 0.4); the first choice has 3/10 of its concept after the question, 9/10 in the domain prompt."""
    concepts = (Fraction(3, 5), Fraction(2, 5))
    choices = (concepts[0] * Fraction(3, 10), concepts[1] * Fraction(1, 2))
    scores = theory.pmi_scores(choices, (share / 2, Fraction(1, 4)))
    evidence.counterexample("the first choice's share changes", concepts=concepts, choices=choices, scores=scores)
    evidence.true("PMI-DC departs from concept mass", theory.prediction(scores) != theory.prediction(concepts))


@undone.check("proof", controls={
    "a share that changes with the question": {"other_share": lambda share: share**2},
    "no division by the prior": {"divide": lambda choice, prior: choice},
})  # fmt: skip
def test_a_constant_share_cancels(
    evidence, *, other_share=lambda share: share, divide=lambda choice, prior: choice / prior
):
    """C s divided by s / K is K C, for every concept mass C, share s and number of choices K."""
    from sympy import simplify, symbols

    concept, share, count = symbols("C s K", positive=True)
    score = divide(concept * share, other_share(share) / count)
    evidence.true("the score is K C", simplify(score - count * concept) == 0)


@st.composite
def shares(draw):
    """(concept masses, two sets of shares) for 2 to 5 choices; the concepts are all different."""
    weights = draw(st.lists(st.integers(1, 99), min_size=2, max_size=5, unique=True), label="concepts")
    some = st.lists(st.integers(1, 9), min_size=len(weights), max_size=len(weights))
    return theory.distribution(weights), *([Fraction(s, 10) for s in draw(some)] for _ in range(2))


@undone.check("property", controls={
    "shares that change with the question": {"domain": lambda under_question, other: other},
    "raw probabilities": {"domain": lambda under_question, other: [Fraction(1)] * len(other)},
})  # fmt: skip
@given(drawn=shares())
def test_constant_shares_leave_the_concepts_in_order(
    evidence, drawn, *, domain=lambda under_question, other: under_question
):
    """The choice with the highest PMI-DC has the highest concept mass."""
    concepts, under_question, other = drawn
    choices = [c * s for c, s in zip(concepts, under_question, strict=True)]
    scores = theory.pmi_scores(choices, [s / len(concepts) for s in domain(under_question, other)])
    evidence.true("both predict the same choice", theory.prediction(scores) == theory.prediction(concepts))
