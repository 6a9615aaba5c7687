"""What one example does to the mass on the choices, and to accuracy (Wiegreffe et al., EMNLP 2023).

What the paper says. Listing the choices and giving one example raises the mass on the choices, PMA; yet more PMA is not
always more accuracy.

Notation. As in test_attentiveness.py; documents mix styles z, and a_z is the chance that a document of style z answers
with a listed choice.

Scope. A mixture of styles in closed form, and a small transformer trained on it. A checkpoint of yours is in
test_attentiveness_checkpoint.py.
"""

from fractions import Fraction
from statistics import fmean as mean
from statistics import stdev

from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.language import attentiveness as theory

PAPER = "wiegreffe2023increasing"
ALPHA = 1e-3


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

    from empirical.language import attentiveness as task

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

    from empirical.language import attentiveness as task

    cases = {"one example": (ONE_EXAMPLE, task.bayes_mass(1)), "no example": (NO_EXAMPLE, task.bayes_mass(0)),
             "choices not listed": (UNLISTED, task.BAYES_UNLISTED)}  # fmt: skip
    for name, (prompt, bayes) in cases.items():
        differences = []
        for seed in SEEDS:
            differences.append(float(trained_masses(rng, seed, prompt, training).mean()) - float(bayes))
            evidence.expect(f"PMA minus Bayes, {name}", differences[-1], within=(-0.05, 0.05))
        half = student.isf(0.025, len(SEEDS) - 1) * stdev(differences) / len(SEEDS) ** 0.5
        evidence.note(f"{name}: PMA minus Bayes is {mean(differences):.3f} +- {half:.3f} (95 %, {len(SEEDS)} seeds)")


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
