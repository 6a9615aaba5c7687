"""Wiegreffe et al., "Increasing Probability Mass on Answer Choices Does Not Always Improve Accuracy", EMNLP 2023; its
first version was "Attentiveness to Answer Choices Doesn't Always Entail High QA Accuracy".

What the paper says. A language model that is asked a multiple-choice question spreads probability over strings that
are no choices, such as synonyms of them: surface-form competition (SFC). The mass on the choices (PMA) bounds it, and
where the top choice leads by more than 1 - PMA, no synonyms can matter. Listing the choices and giving one example
raises PMA. Yet more PMA is not always more accuracy, and neither is normalising by a prior (PMI-DC).

Notation. P_(1), P_(2), ... are the choices' probabilities, sorted; C(l) is the mass of a choice with its synonyms; a_z
is the chance that a document of style z answers with a listed choice. PMA is the first version's "attentiveness".

Files. This one has the bound and what follows from it; _examples what one example does, _priors the normalisation,
_checkpoint the claims on a checkpoint of yours.

Scope. The body of the paper was read through its abstract and its released code, github.com/allenai/
revisiting_surface_form_competition. Its six models and three data sets are not rerun; a checkpoint of yours can be.
"""

from fractions import Fraction
from itertools import combinations

from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.language import attentiveness as theory

PAPER = "wiegreffe2023increasing"


@st.composite
def instances(draw):
    """(choices, others): probabilities of 2 to 4 choices, often with a close runner-up, and of 1 to 3 other strings."""
    top = draw(st.integers(0, 30), label="top")
    behind = st.one_of(st.integers(0, 3), st.integers(0, 30))
    rivals = [max(0, top - less) for less in draw(st.lists(behind, min_size=1, max_size=3), label="behind")]
    others = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3), label="others")
    shares = theory.distribution([top + 1, *rivals, *others])
    return shares[: 1 + len(rivals)], shares[1 + len(rivals) :]


# -- A1: what the mass on the choices bounds ---------------------------------------------------------------------------

bound = Claim(
    paper=PAPER, slug="competition-bound", where="abstract and formal section; analysis/compute_bounds.py",
    says="For every distribution over complete strings and all disjoint classes of synonyms, the mass on synonyms of "
    "the choices is at least 0 and at most 1 - PMA.",
    formula=r"0 \le \mathrm{SFC} = \sum_{\ell} C(\ell) - \mathrm{PMA} \le 1 - \mathrm{PMA}",
    gap="Says nothing on which strings a reader would call synonyms. The proof is for finitely many strings; the "
    "bound passes to the limit, since partial sums of probabilities increase.",
)  # fmt: skip

DISJOINT = ((1, 1), (0, 1), (0, 0))  # (is a choice, number of classes it lies in): choice, synonym, neither


@bound.check("proof", controls={
    "a string in two classes": {"memberships": (*DISJOINT, (0, 2))},
    "a choice outside its own class": {"memberships": (*DISJOINT, (1, 0))},
    "probabilities that sum to 2": {"total": 2},
})  # fmt: skip
def test_each_string_adds_nothing_negative_to_either_side(evidence, *, memberships=DISJOINT, total=1):
    """Both sides are sums over any number of strings, in which no term is negative."""
    evidence.true("1 - PMA - SFC is the sum of (1 - m) p over all strings", theory.bound_residual(total) == 0)
    for choice, classes in memberships:
        evidence.expect("share of a string in SFC", classes - choice, at_least=0)
        evidence.expect("share of a string in 1 - PMA - SFC", 1 - classes, at_least=0)


def overlapping(choices, others, owners):
    """SFC when each synonym counts for every choice."""
    return len(choices) * sum(p for p, owner in zip(others, owners, strict=True) if owner is not None)


@bound.check("property", controls={
    "overlapping classes": {"competition": overlapping},
    "weights without normalisation": {"total": 2},
})  # fmt: skip
@given(instance=instances())
def test_no_assignment_of_synonyms_leaves_the_bounds(evidence, instance, *, competition=theory.competition, total=1):
    """In every assignment of the other strings SFC obeys the bound; all of them as synonyms attain it."""
    choices, others = ([total * p for p in part] for part in instance)
    masses = [competition(choices, others, owners) for owners in theory.assignments(len(choices), len(others))]
    evidence.expect("smallest SFC", min(masses), equals=0, error=0)
    evidence.expect("1 - PMA - largest SFC", 1 - theory.mass(choices) - max(masses), equals=0, error=0)


# -- A1 and A2 as the released code computes them ----------------------------------------------------------------------

prefixes = Claim(
    paper=PAPER, slug="prefix-probabilities",
    where="released code: main.py, utils/flanT5_utils.py (drops the end token), analysis/compute_bounds.py",
    says="With the product of the choices' token probabilities, as the released code computes it, PMA is at most 1, "
    "and a resolved prediction is the model's most probable choice.",
    formula=r"P(\ell \mid x) = \prod_{t \le |\ell|} p(\ell_t \mid x, \ell_{<t})",
    gap="Does not say how often the paper's data sets hold a choice that begins another; its tables may be untouched.",
    repair="It holds if the end of the string counts as a token, or if no choice is the beginning of another.",
)  # fmt: skip

BATH, BATH_TUB = ("bath",), ("bath", "tub")
BATHS = {
    (): {"bath": Fraction(9, 10), "puddle": Fraction(1, 10)},
    BATH: {"tub": Fraction(17, 18), theory.END: Fraction(1, 18)},
    BATH_TUB: {theory.END: Fraction(1)},
    ("puddle",): {theory.END: Fraction(1)},
}


@prefixes.refutation("exact", controls={"with the end token": {"probability": theory.complete_probability}})
def test_a_resolved_prediction_can_be_the_wrong_choice(evidence, *, probability=theory.prefix_probability):
    """Choices "bath" and "bath tub": PMA is 7/4, "bath" counts as resolved, yet the model says "bath tub"."""
    scores = [probability(BATHS, choice) for choice in (BATH, BATH_TUB)]
    complete = [theory.complete_probability(BATHS, choice) for choice in (BATH, BATH_TUB)]
    evidence.counterexample(
        "one choice begins the other", prefix=scores, complete=complete, prefix_mass=theory.mass(scores)
    )
    evidence.true("the code calls it resolved", theory.resolved(scores))
    evidence.true("its prediction is not the most probable string",
                  theory.prediction(scores) != theory.prediction(complete))  # fmt: skip
    evidence.expect("1 - PMA from prefixes", 1 - theory.mass(scores), less_than=0)


WORDS = [("a",), ("b",), ("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
CHOICES = [list(some) for size in (2, 3) for some in combinations(WORDS, size)]
STRINGS = [(), *WORDS]


@st.composite
def models(draw):
    """A language model over two tokens, whose strings have at most two."""
    weights = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)).map(theory.distribution)
    inner = {start: dict(zip(("a", "b", theory.END), draw(weights), strict=True)) for start in STRINGS[:3]}
    return inner | {start: {theory.END: Fraction(1)} for start in STRINGS[3:]}


@prefixes.check("property", controls={"choices that begin one another": {"condition": lambda choices: True}})
@given(model=models(), choices=st.sampled_from(CHOICES))
def test_prefix_free_choices_compete_as_complete_strings_do(evidence, model, choices, *, condition=theory.prefix_free):
    """If no choice begins another, prefix-PMA is the mass of disjoint sets of strings, and resolved means resolved."""
    if condition(choices):
        scores = [theory.prefix_probability(model, choice) for choice in choices]
        others = [theory.complete_probability(model, one) for one in STRINGS
                  if not any(theory.begins(one, choice) for choice in choices)]  # fmt: skip
        evidence.expect("PMA plus all other strings", theory.mass(scores) + sum(others), equals=1, error=0)
        criterion_holds(evidence, scores, others, theory.resolved)


@prefixes.check("property", controls={"without the end token": {"probability": theory.prefix_probability}})
@given(model=models(), choices=st.sampled_from(CHOICES))
def test_complete_strings_never_overflow(evidence, model, choices, *, probability=theory.complete_probability):
    """With the end token any set of choices leaves a mass below 1, and resolved means resolved."""
    scores = [probability(model, choice) for choice in choices]
    others = [theory.complete_probability(model, one) for one in STRINGS if one not in choices]
    evidence.expect("PMA plus all other strings", theory.mass(scores) + sum(others), equals=1, error=0)
    criterion_holds(evidence, scores, others, theory.resolved)


guard = Claim(
    paper=PAPER, slug="range-guard", where="released code: main.py, lines 1010 and 1025",
    says="The released code stops where a sum of choice probabilities leaves [0, 1].",
    formula=r"0 > s > 1",
    gap="About the code alone; whether a sum left [0, 1] in the paper's runs is not known.",
)  # fmt: skip


@guard.refutation("exact", controls={"not 0 <= s <= 1": {"stops": lambda s: not 0 <= s <= 1}})
def test_the_guard_never_stops(evidence, *, stops=lambda s: 0 > s > 1):
    """Python reads 0 > s > 1 as 0 > s and s > 1: no number is both, so 7/4 passes."""
    evidence.counterexample("mass from prefixes of bath and bath tub", s=Fraction(7, 4))
    evidence.true("7/4 passes", not stops(Fraction(7, 4)))
    evidence.true("-1 passes", not stops(Fraction(-1)))


# -- A2: when the prediction is certain --------------------------------------------------------------------------------

certain = Claim(
    paper=PAPER, slug="resolved-is-certain", where="formal section; analysis/compute_bounds.py",
    says="If the top choice leads the runner-up by more than 1 - PMA, no disjoint classes of synonyms change or tie "
    "the prediction.",
    formula=r"P_{(1)} - P_{(2)} > 1 - \mathrm{PMA} \implies C(\ell_1) > C(\ell_j) \quad \forall j \neq 1",
    gap="Choices that are near-synonyms of each other break the disjointness. Nothing is said on whether the "
    "prediction is right, nor on the bias of summed log-probabilities towards short choices.",
)  # fmt: skip


def criterion_holds(evidence, choices, others, criterion):
    """Wherever the criterion says so, the top choice stays ahead in all assignments of synonyms."""
    if criterion(choices):
        evidence.expect("largest C(l_j) - C(l_1) over all assignments", -lead_of(choices, others), less_than=0)


def lead_of(choices, others):
    return theory.smallest_lead(tuple(choices), tuple(others))


@certain.check("proof", controls={
    "a lead above half of 1 - PMA": {"required": lambda remainder: remainder / 2},
    "any lead at all": {"required": lambda remainder: 0 * remainder},
})  # fmt: skip
def test_the_lead_is_a_sum_of_slacks(evidence, *, required=lambda remainder: remainder):
    """C(l_1) - C(l_j) has no negative coefficient in slacks that are at least 0, and the excess counts fully."""
    coefficients = theory.lead_coefficients(required)
    evidence.expect("coefficients of the slacks", list(coefficients.values()), at_least=0)
    evidence.expect("coefficient of the excess over 1 - PMA", coefficients["excess"], equals=1, error=0)


@certain.check("property", controls={
    "a lead above half of 1 - PMA": {"criterion": lambda p: theory.lead(p) > (1 - theory.mass(p)) / 2},
    "a lead of 1 - PMA exactly": {"criterion": lambda p: theory.lead(p) >= 1 - theory.mass(p)},
    "PMA above one half": {"criterion": lambda p: theory.mass(p) > Fraction(1, 2)},
    "PMA above 9/10": {"criterion": lambda p: theory.mass(p) > Fraction(9, 10)},
})  # fmt: skip
@given(instance=instances())
def test_a_resolved_prediction_survives_every_assignment(evidence, instance, *, criterion=theory.resolved):
    """All ways to make the other strings synonyms of choices are tried, and none ties or changes the prediction."""
    criterion_holds(evidence, *instance, criterion)


sharp = Claim(
    paper=PAPER, slug="resolved-is-sharp", where="formal section; the converse is ours",
    says="If the lead is at most 1 - PMA, making all other strings synonyms of the runner-up ties or overturns the "
    "prediction; so the criterion, which is also 2 P_(1) + P_(3) + ... + P_(K) > 1, cannot be weakened.",
    formula=r"\min_{\text{synonyms}} \bigl( C(\ell_1) - \max_{j \neq 1} C(\ell_j) \bigr) = "
    r"2 P_{(1)} + \sum_{i \ge 3} P_{(i)} - 1",
    gap="The worst assignment is a possible one, not a plausible one: real synonyms may be far from it.",
)  # fmt: skip


@sharp.check("property", controls={
    "half of 1 - PMA": {"least": lambda p: theory.lead(p) - (1 - theory.mass(p)) / 2},
    "the sum without the third and further choices": {"least": lambda p: 2 * max(p) - 1},
})  # fmt: skip
@given(instance=instances())
def test_the_worst_assignment_costs_exactly_the_remainder(
    evidence, instance, *, least=lambda p: theory.lead(p) - (1 - theory.mass(p))
):
    """The smallest lead over all assignments equals the formula, so its sign decides, and so does the other form."""
    choices, _ = instance
    smallest = lead_of(*instance)
    evidence.expect("smallest lead minus formula", smallest - least(choices), equals=0, error=0)
    evidence.true("resolved as the lead says", theory.resolved(choices) == (smallest > 0))
    evidence.true("resolved as the sum says", theory.resolved_by_sum(choices) == (smallest > 0))


enough = Claim(
    paper=PAPER, slug="mass-certifies", where="a stronger reading of the abstract (mass removes the impact of SFC)",
    says="A PMA close enough to 1, by itself, guarantees that synonyms cannot change the prediction.",
    formula=r"\mathrm{PMA} > 1 - \varepsilon \implies C(\ell_1) > C(\ell_j)",
    gap="The paper does not print this; it measures the lead as well.",
    repair="A top choice with more than half of all mass guarantees it.",
)  # fmt: skip


@enough.refutation("exact", controls={
    "the lead counts as well": {"certifies": lambda p, threshold: theory.resolved(p)},
    "the top choice counts alone": {"certifies": lambda p, threshold: max(p) > Fraction(1, 2)},
})  # fmt: skip
def test_at_every_mass_below_one_the_runner_up_can_win(
    evidence, *, certifies=lambda p, threshold: theory.mass(p) > threshold
):
    """Weights 2n and 2n - 1 against a remainder of 2: PMA tends to 1, and the remainder overturns the prediction."""
    for n in (1, 10, 1000):
        *choices, other = theory.distribution([2 * n, 2 * n - 1, 2])
        threshold = 1 - Fraction(3, 4 * n + 1)
        evidence.true(f"n = {n} counts as certain", certifies(choices, threshold))
        evidence.expect("smallest lead", lead_of(choices, [other]), less_than=0)
        evidence.counterexample(f"PMA above {threshold}", choices=choices, remainder=other)


@enough.check("property", controls={
    "PMA above 9/10": {"criterion": lambda p: theory.mass(p) > Fraction(9, 10)},
    "a top choice with a third of all mass": {"criterion": lambda p: max(p) > Fraction(1, 3)},
})  # fmt: skip
@given(instance=instances())
def test_a_majority_for_the_top_choice_is_certain(evidence, instance, *, criterion=lambda p: max(p) > Fraction(1, 2)):
    """With P_(1) > 1/2 no assignment of synonyms ties or changes the prediction."""
    criterion_holds(evidence, *instance, criterion)
