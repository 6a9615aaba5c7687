"""Wiegreffe et al., "Increasing Probability Mass on Answer Choices Does Not Always Improve Accuracy", EMNLP 2023; its
first version was "Attentiveness to Answer Choices Doesn't Always Entail High QA Accuracy".

What the paper says. A language model that is asked a multiple-choice question spreads probability over strings that
are no choices, such as synonyms of them: surface-form competition (SFC). The mass on the choices (PMA) bounds it, and
where the top choice leads by more than 1 - PMA, no synonyms can matter. Listing the choices and giving one example
raises PMA. Yet more PMA is not always more accuracy, and neither is normalising by a prior (PMI-DC).

Notation. P_(1), P_(2), ... are the choices' probabilities, sorted; C(l) is the mass of a choice with its synonyms; a_z
is the chance that a document of style z answers with a listed choice. PMA is the first version's "attentiveness".

Scope. The body of the paper was read through its abstract and its released code, github.com/allenai/
revisiting_surface_form_competition. Its six models and three data sets are not rerun; a checkpoint of yours can be.
"""

from fractions import Fraction
from itertools import combinations
from statistics import fmean as mean
from statistics import stdev

import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory import attentiveness as theory

PAPER = "wiegreffe2023increasing"
ALPHA = 1e-3


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


# -- A3 and A4: one example and a list of choices ----------------------------------------------------------------------

mixture = Claim(
    paper=PAPER, slug="one-example-in-a-mixture", where="abstract (even one example raises PMA); the mechanism is ours",
    says="Where documents have a style of their own, the optimal predictor's PMA rises by Var(a) / E(a) after one "
    "example answered with a listed choice; it stays the same exactly when all styles are alike.",
    formula=r"\mathrm{PMA}_1 - \mathrm{PMA}_0 = \frac{\mathrm{Var}(a_z)}{\mathrm{E}(a_z)} \ge 0",
    gap="That text is such a mixture is assumed. An example known to be right as well shifts belief by the styles' "
    "rightness too: then the gain is Cov(a, a r) / E(a r), which can be negative.",
)  # fmt: skip


@mixture.check("proof", controls={
    "variance not divided by the mean": {"gain": lambda mean, variance: variance},
    "divided by the mean squared": {"gain": lambda mean, variance: variance / mean**2},
})  # fmt: skip
def test_the_gain_is_variance_over_mean(evidence, *, gain=lambda mean, variance: variance / mean):
    """E[a^2] / E[a] - E[a] equals the formula in the moments of any number of styles."""
    evidence.true("the two sides agree", theory.gain_residual(gain) == 0)


@st.composite
def mixtures(draw):
    """(prior, verbatim) of 2 to 5 styles, each of positive weight, some of them alike."""
    size = draw(st.integers(2, 5), label="styles")
    weights = draw(st.lists(st.integers(1, 9), min_size=size, max_size=size), label="weights")
    verbatim = draw(st.lists(st.integers(1, 6), min_size=size, max_size=size), label="verbatim")
    return theory.distribution(weights), [Fraction(a, 6) for a in verbatim]


@mixture.check("property", controls={
    "each pair has a style of its own": {"after_one": lambda prior, verbatim: theory.mass_after(prior, verbatim, 0)},
    "two examples": {"after_one": lambda prior, verbatim: theory.mass_after(prior, verbatim, 2)},
})  # fmt: skip
@given(styles=mixtures())
def test_bayes_rule_gives_that_gain(
    evidence, styles, *, after_one=lambda prior, verbatim: theory.mass_after(prior, verbatim, 1)
):
    """Bayes' rule, applied to the styles one by one, raises PMA by the formula; by 0 exactly for equal styles."""
    prior, verbatim = styles
    before = theory.mass_after(prior, verbatim, 0)
    gain = after_one(prior, verbatim) - before
    evidence.expect("gain", gain, at_least=0)
    evidence.expect("gain minus Var / E", gain - theory.variance(prior, verbatim) / before, equals=0, error=0)
    evidence.true("no gain means equal styles", (gain == 0) == (len(set(verbatim)) == 1))


trained = Claim(
    paper=PAPER, slug="trained-transformer", where="abstract: a) choices in the prompt, b) one in-context example",
    says="A transformer trained from scratch on documents with styles puts more mass on the choices when they are "
    "listed, and more again after one example answered with a choice, as much as Bayes' rule does.",
    formula=r"\mathrm{PMA}_{\text{unlisted}} < \mathrm{PMA}_0 < \mathrm{PMA}_1 \approx "
    r"\frac{\mathrm{E}(a_z^2)}{\mathrm{E}(a_z)}",
    gap="Two layers, 13 tokens, two styles that show in the answer's token: no strings are compared. Prompts are "
    "drawn from 72 different ones (6 without example). Natural text and large models are not shown to behave so.",
)  # fmt: skip

SEEDS = range(3)
PROMPTS = 200  # for each seed


ONE_EXAMPLE, NO_EXAMPLE, UNLISTED = {"examples": 1}, {"examples": 0}, {"examples": 0, "listed": False}
ON_DOCUMENTS = {"shared": True}


def trained_masses(rng, seed, prompt, training=ON_DOCUMENTS):
    """PMA of the decoder with this seed, float64 (PROMPTS,); the last questions are the same for any prompt."""
    import torch

    from empirical import attentiveness as task

    model = task.train(rng.seed("training", seed), **training)
    generator = torch.Generator().manual_seed(rng.seed("prompts", seed))
    return task.masses(model, task.prompts(PROMPTS, generator, **prompt))


def rises_for_every_seed(evidence, rng, name, before, after):
    """Paired sign test over the questions, a tie counting against; the seeds share ALPHA."""
    for seed in SEEDS:
        gain = trained_masses(rng, seed, after) - trained_masses(rng, seed, before)
        evidence.sign_test(f"{name}, seed {seed}", int((gain > 0).sum()), PROMPTS, alpha=ALPHA / len(SEEDS))


@trained.check("experiment", controls={
    "an example answered with a synonym": {"after": {"examples": 1, "form": 1}},
    "no example": {"after": {"examples": 0, "form": 0}},
})  # fmt: skip
def test_one_example_raises_the_mass(evidence, rng, *, after=ONE_EXAMPLE):
    """For each of three seeds, paired sign test over 200 prompts: PMA after one verbatim example against none."""
    rises_for_every_seed(evidence, rng, "questions with more mass after one example", NO_EXAMPLE, after)


@trained.check("experiment", controls={
    "the choices of other concepts": {"after": {"examples": 0, "shift": 1}},
    "the question alone": {"after": UNLISTED},
})  # fmt: skip
def test_listing_the_choices_raises_the_mass(evidence, rng, *, after=NO_EXAMPLE):
    """For each of three seeds, paired sign test over 200 prompts: PMA with the choices listed against without."""
    rises_for_every_seed(evidence, rng, "questions with more mass when choices are listed", UNLISTED, after)


@trained.check("experiment", controls={
    "documents whose pairs draw their styles independently": {"training": {"shared": False}},
    "a tenth of the training": {"training": {"steps": 40}},
})  # fmt: skip
def test_the_mass_is_that_of_bayes_rule(evidence, rng, *, training=ON_DOCUMENTS):
    """For each of three seeds, mean PMA unlisted, after no example and after one is within 0.05 of Bayes' value."""
    from scipy.stats import t as student

    from empirical import attentiveness as task

    cases = {"one example": (ONE_EXAMPLE, task.bayes_mass(1)), "no example": (NO_EXAMPLE, task.bayes_mass(0)),
             "choices not listed": (UNLISTED, task.BAYES_UNLISTED)}  # fmt: skip
    for name, (prompt, bayes) in cases.items():
        differences = []
        for seed in SEEDS:
            differences.append(float(trained_masses(rng, seed, prompt, training).mean()) - float(bayes))
            evidence.expect(f"PMA minus Bayes, {name}", differences[-1], within=(-0.05, 0.05))
        half = student.isf(0.025, len(SEEDS) - 1) * stdev(differences) / len(SEEDS) ** 0.5
        evidence.note(f"{name}: PMA minus Bayes is {mean(differences):.3f} +- {half:.3f} (95 %, {len(SEEDS)} seeds)")


checkpoint_mass = Claim(
    paper=PAPER, slug="checkpoint-mass", where="abstract: a) choices in the prompt, b) one in-context example",
    says="On your checkpoint, listing the choices and giving one example raises the mass on the choices over that of "
    "the bare question.",
    formula=r"\mathrm{PMA}(\text{one example, choices listed}) > \mathrm{PMA}(\text{question alone})",
    gap="About the checkpoint that is given, not about the paper's six. An answer ends at the end token or a line "
    "break; other tokenisations of the same string are not counted. Examples come from the questions file.",
)  # fmt: skip

checkpoint_resolved = Claim(
    paper=PAPER, slug="checkpoint-resolved",
    where="abstract of version 2 and Table 8, weakened: the paper says that most instances are resolved",
    says="On your checkpoint, listing the choices and giving one example resolves more questions than it unresolves.",
    formula=r"\#\{x : P_{(1)} - P_{(2)} > 1 - \mathrm{PMA}\} \text{ rises}",
    gap="The share that is resolved is reported and not judged: the paper's majority is about its six models.",
)  # fmt: skip

BARE, LISTED = ("no choices", 0, "draw 1"), ("string choices", 1, "draw 1")  # format, examples, draw of examples
WITHOUT_GAIN = {
    "the question alone, twice": {"after": BARE},
    "two prompts that differ by the draw of their example": {"before": ("string choices", 1, "draw 2")},
}
needs_time = pytest.mark.timeout(3600)  # some seconds a question on one core for a model of a billion parameters


def scored(checkpoint, questions, rng, prompt):
    """Every question's choices under one prompt; not run on fewer questions than a sign test at ALPHA can use."""
    from empirical.checkpoints import measure

    if len(questions) < 10:
        pytest.skip("needs at least 10 questions in --questions FILE")
    style, examples, draw = prompt
    return measure(checkpoint, questions, style, examples, seed=rng.seed(draw))


def is_resolved(probabilities):
    return theory.resolved([Fraction(p) for p in probabilities])


@checkpoint_mass.check("experiment", controls=WITHOUT_GAIN)
@needs_time
def test_the_checkpoint_attends_to_listed_choices(evidence, rng, checkpoint, questions, *, before=BARE, after=LISTED):
    """Paired sign test over your questions, a tie counting against: PMA of complete strings, listed against bare."""
    pairs = [scored(checkpoint, questions, rng, prompt) for prompt in (before, after)]
    wins = sum(sum(new.complete) > sum(old.complete) for old, new in zip(*pairs, strict=True))
    evidence.sign_test("questions with more mass on their choices", wins, len(questions), alpha=ALPHA)


@checkpoint_resolved.check("experiment", controls=WITHOUT_GAIN)
@needs_time
def test_the_checkpoint_resolves_more_questions(evidence, rng, checkpoint, questions, *, before=BARE, after=LISTED):
    """Sign test over the questions whose state changes; the table of all prompts stands in the notes."""
    pairs = [scored(checkpoint, questions, rng, prompt) for prompt in (before, after)]
    states = [[is_resolved(one.complete) for one in prompt] for prompt in pairs]
    changes = [new - old for old, new in zip(*states, strict=True) if new != old]
    for row in prompt_table(checkpoint, questions, rng):
        evidence.note(row)
    evidence.expect("questions whose state changes", len(changes), at_least=1)
    evidence.sign_test("questions resolved anew", changes.count(1), len(changes), alpha=ALPHA)


def prompt_table(checkpoint, questions, rng):
    """A sentence for each prompt format and number of examples: resolved, mean PMA and accuracy, in both readings."""
    from empirical.checkpoints import FORMATS

    for prompt in ((style, examples, "draw 1") for style in FORMATS for examples in (0, 1)):
        one = scored(checkpoint, questions, rng, prompt)
        yield f"{prompt[0]}, {prompt[1]} examples: " + "; ".join(
            f"{name}: {mean(is_resolved(p) for p in read):.1%} resolved, mean PMA {mean(map(sum, read)):.3g}, "
            f"accuracy {mean(p.index(max(p)) == q.answer for p, q in zip(read, one, strict=True)):.1%}"
            for name, read in (("complete strings", [q.complete for q in one]), ("prefixes", [q.prefix for q in one]))
        )


# -- A5: more mass, less accuracy --------------------------------------------------------------------------------------

worse = Claim(
    paper=PAPER, slug="more-mass-less-accuracy", where="abstract, Figure 4, Table 1",
    says="There are documents and questions for which the optimal predictor, after one right example answered with a "
    "choice, puts more mass on the choices and yet turns from the right choice to a wrong one.",
    formula=r"\mathrm{PMA}_1 > \mathrm{PMA}_0, \qquad \mathrm{acc}_1 = 0 < 1 = \mathrm{acc}_0",
    gap="Existence, by a mixture of two styles: it explains how it can be, not why it is so for the paper's models.",
)  # fmt: skip

# Style by style: share, chance of a listed choice, chance that a listed choice is the right one (of two).
HALF, ONE = Fraction(1, 2), Fraction(1)
CARELESS = [(HALF, ONE, Fraction(2, 5)), (HALF, Fraction(1, 4), ONE)]
CARELESS_ELSEWHERE = [(HALF, HALF, Fraction(2, 5)), (HALF, Fraction(1, 5), Fraction(9, 10))]


def right_and_wrong(styles, likelihood):
    """(P(right), P(wrong)) of a question with two choices, after an example of this likelihood in each style."""
    shares, verbatim, right = zip(*styles, strict=True)
    after = theory.posterior(shares, likelihood)
    return (theory.expectation(after, [a * r for a, r in zip(verbatim, right, strict=True)]),
            theory.expectation(after, [a * (1 - r) for a, r in zip(verbatim, right, strict=True)]))  # fmt: skip


@worse.check("exact", controls={
    "styles that are equally right": {"styles": [(p, a, Fraction(3, 5)) for p, a, _ in CARELESS]},
    "the verbatim style is the careful one": {"styles": [(HALF, ONE, ONE), (HALF, Fraction(1, 4), Fraction(2, 5))]},
})  # fmt: skip
def test_one_right_example_can_raise_mass_and_lose_the_answer(evidence, *, styles=CARELESS):
    """The example is known to be right as well: PMA rises from 5/8 to 37/52, the lead falls from 1/40 to -7/260."""
    mass_up_and_answer_lost(evidence, styles, [a * right for _, a, right in styles])


@worse.check("exact", controls={
    "styles that are equally right": {"styles": [(p, a, Fraction(3, 5)) for p, a, _ in CARELESS_ELSEWHERE]},
    "styles that are equally verbatim": {"styles": [(p, HALF, right) for p, _, right in CARELESS_ELSEWHERE]},
})  # fmt: skip
def test_it_needs_no_example_that_tells_on_rightness(evidence, *, styles=CARELESS_ELSEWHERE):
    """The example is easy, right in both styles: PMA rises from 7/20 to 29/70, the lead falls from 3/100 to -9/350."""
    mass_up_and_answer_lost(evidence, styles, [a for _, a, _ in styles])


def mass_up_and_answer_lost(evidence, styles, likelihood):
    right, wrong = right_and_wrong(styles, [Fraction(1)] * len(styles))
    right_after, wrong_after = right_and_wrong(styles, likelihood)
    evidence.expect("loss of PMA by the example", (right + wrong) - (right_after + wrong_after), less_than=0)
    evidence.expect("P(wrong) - P(right) without example", wrong - right, less_than=0)
    evidence.expect("P(right) - P(wrong) after one example", right_after - wrong_after, less_than=0)


# -- A6: dividing by the prior -----------------------------------------------------------------------------------------

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
