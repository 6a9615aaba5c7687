"""Decoding against a branch that sees outlier tokens only (DAMRO; Gong et al., 2024): what contrast can do and cannot.

What the paper says. The image tokens with the most attention of the vision encoder's class token are outliers from the
background; a second branch of the same model sees them alone, and the logits of the next word are (1 + alpha) l -
alpha l^-, which eliminates the outliers' influence. Words below beta = 0.1 of the likeliest's probability are dropped.
The paper's body was not at hand: its abstract, README and code, github.com/coder-gx/DAMRO, were read.
test_damro_filter.py has the filter, test_damro_tables.py the reported numbers, test_damro_trained.py small models.

Notation. l and l^- are the logits from the whole image and from the outliers alone (`minus`), p and p^- their softmax.
alpha is 0.5 to 2 in the code.

Scope. One step of decoding, any logits. Where influence is spoken of, the logits are a sum, l = r + o: the case in
which the part of the outliers, o, is well defined, and in which the second branch knows it exactly, l^- = o.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax_rows
from theory.sinks.damro import contrast, product_of_experts

PAPER = "gong2024damro"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)
words = st.integers(2, 50)
alphas = st.floats(0, 4)


def draw(seed, n):
    """Two rows of logits N(0, 4)."""
    return 2 * np.random.default_rng(seed).standard_normal((2, n))


def budget(alpha, *logits):
    """Error of probabilities whose logits are sums of products of this size."""
    return 64 * EPS * (1 + 2 * alpha) * (1 + max(abs(one).max() for one in logits))


def cut_by_contrasted(logits, minus, alpha, beta):
    combined = contrast(logits, minus, alpha, 0)
    return np.where(combined >= np.log(beta) + combined.max(axis=-1, keepdims=True), combined, -np.inf)


def without_one(logits, minus, alpha, beta):
    """alpha (l - l^-)."""
    return contrast(logits, minus, alpha, beta) - logits


def no_contrast(logits, minus, alpha, beta):
    return logits


def half_of_alpha(logits, minus, alpha, beta):
    return contrast(logits, minus, alpha / 2, beta)


def difference(logits, minus, alpha, beta):
    """Nothing of the whole image's logits is left."""
    return logits - minus


# -- A4: the rule ------------------------------------------------------------------------------------------------------

rule = Claim(
    paper=PAPER,
    slug="contrast-rule",
    where="the decoding rule; sample_method/sample.py",
    says="Contrast with a cut-off samples from the product p^(1 + alpha) / p^-^alpha on the words with "
    "p >= beta max p; the likeliest word is always kept.",
    formula=r"\tilde p \propto p^{1+\alpha} / (p^-)^{\alpha} \quad \text{on } \{p \ge \beta \max p\}",
    gap="The released sampler also skips temperature and other processors of logits; this is not modelled.",
)


@rule.check(
    "property",
    controls={"cut-off on the contrasted logits": {"rule": cut_by_contrasted}, "without the 1": {"rule": without_one}},
)
@given(seed=seeds, n=words, alpha=alphas, beta=st.floats(0.01, 1))
def test_it_is_a_product_of_experts_on_plausible_words(evidence, seed, n, alpha, beta, *, rule=contrast):
    """Random logits; the same in probabilities, to rounding."""
    logits, minus = draw(seed, n)
    found = softmax_rows(rule(logits, minus, alpha, beta))
    expected = product_of_experts(softmax_rows(logits), softmax_rows(minus), alpha, beta)
    evidence.expect("largest difference", found - expected, equals=0, error=budget(alpha, logits, minus))
    evidence.expect("probability of the likeliest word", found[logits.argmax()], at_least=np.finfo(float).tiny)


free = Claim(
    paper=PAPER,
    slug="training-free",
    where="Abstract, README (no training, no external knowledge or model)",
    says="Nothing is trained and no other model enters: a second branch that sees what the first sees, and alpha = 0, "
    "leave the model's distribution as it is.",
    formula=r"l^- = l \;\text{ or }\; \alpha = 0 \;\Rightarrow\; \tilde p = p",
    gap="It is not free of cost: every word takes a second pass of the decoder over the outliers and the text. alpha "
    "and k were chosen for each model and benchmark.",
)


def the_same(seed, logits):
    return logits


def another(seed, logits):
    return draw(seed + 1, len(logits))[0]


@free.check("property", controls={"without the 1": {"rule": without_one}, "another model": {"second": another}})
@given(seed=seeds, n=words, alpha=st.floats(0.5, 4))
def test_against_itself_the_model_is_unchanged(evidence, seed, n, alpha, *, rule=contrast, second=the_same):
    """No cut-off: beta = 0."""
    logits, minus = draw(seed, n)
    p = softmax_rows(logits)
    for name, found in (
        ("against itself", rule(logits, second(seed, logits), alpha, 0)),
        ("alpha = 0", rule(logits, minus, 0.0, 0)),
    ):
        evidence.expect(f"change of p, {name}", softmax_rows(found) - p, equals=0, error=budget(alpha, logits))


# -- A4: does it eliminate the influence? ------------------------------------------------------------------------------

eliminates = Claim(
    paper=PAPER,
    slug="eliminates-influence",
    where="Abstract (eliminate their influence during decoding)",
    says="Subtracting the logits of the outliers-only branch eliminates the outliers' influence on the next word.",
    formula=r"l = r + o,\ l^- = o: \quad (1 + \alpha)\, l - \alpha\, l^- \ \text{does not depend on } o",
    repair="It is diluted: relative to the rest of the image its weight falls from 1 to 1 / (1 + alpha).",
    gap="Logits of a large model are no such sum; then the influence has no single definition.",
)


def additive():
    import sympy

    return sympy.symbols("r1 r2 o1 o2", real=True), sympy.Symbol("alpha", positive=True)


@eliminates.refutation("proof", controls={"l - l^-": {"rule": difference}})
def test_the_influence_is_what_it_was(evidence, *, rule=contrast):
    """Symbols for two words: the log-odds change one to one with those of the outliers, for every alpha."""
    import sympy

    (r1, r2, o1, o2), alpha = additive()
    found = rule(np.array([r1 + o1, r2 + o2], dtype=object), np.array([o1, o2], dtype=object), alpha, 0)
    slope = sympy.expand(sympy.diff(found[0] - found[1], o1))
    evidence.expect("slope of the log-odds by the outliers' logit", slope, equals=1, error=0)
    evidence.counterexample("Two words, alpha = 2", r=[1, 0], o=[0, 4], full=[1, 4], contrasted=[3, 4])


@eliminates.check("proof", scope="its weight", controls={"no contrast": {"rule": no_contrast}})
def test_the_weight_relative_to_the_rest_is_diluted(evidence, *, rule=contrast):
    """The ratio of both slopes, as a function of alpha."""
    import sympy

    (r1, r2, o1, o2), alpha = additive()
    found = rule(np.array([r1 + o1, r2 + o2], dtype=object), np.array([o1, o2], dtype=object), alpha, 0)
    odds = sympy.expand(found[0] - found[1])
    ratio = sympy.simplify(sympy.diff(odds, o1) / sympy.diff(odds, r1))
    evidence.true("weight of the outliers is 1 / (1 + alpha)", sympy.simplify(ratio - 1 / (1 + alpha)) == 0)


@eliminates.check(
    "property",
    scope="which word wins",
    controls={"no contrast": {"rule": no_contrast}, "half of alpha": {"rule": half_of_alpha}},
)
@given(seed=seeds, n=words, alpha=st.floats(0.5, 4), share=st.floats(0.5, 0.999))
def test_the_outliers_win_beyond_one_plus_alpha_leads(evidence, seed, n, alpha, share, *, rule=contrast):
    """r leads by its first word; the outliers favour another by `share` (1 + alpha) leads. At share = 1 they tie."""
    r = np.sort(draw(seed, n)[0])[::-1]
    lead, other = r[0] - r[1], np.arange(n) == 1
    found, tie = (rule(r + o, o, alpha, 0) for o in (one * (1 + alpha) * lead * other for one in (share, 1)))
    evidence.expect("margin of the first word over its lead", (found[0] - found[1:].max()) / lead, at_least=0)
    error = 64 * EPS * (1 + alpha) * (1 + abs(r).max() / lead)
    evidence.expect("margin at share = 1", (tie[0] - tie[1]) / lead, equals=0, error=error)


moves = Claim(
    paper=PAPER,
    slug="which-words-lose",
    where="ours, on the decoding rule; the paper does not say otherwise",
    says="Contrast lowers the odds of a word exactly if the outliers alone favour it more than the whole image does, "
    "hallucinated or not: where they favour the truth more, the truth loses, and can lose to a wrong word.",
    formula=r"\frac{d}{d\alpha} \ln \frac{\tilde p_1}{\tilde p_2} = (l_1 - l_2) - (l^-_1 - l^-_2)",
    gap="How often outliers know of objects that are there; encoders are said to keep global information in them.",
)


@moves.check("proof", controls={"without the 1": {"rule": without_one}, "no contrast": {"rule": no_contrast}})
def test_the_odds_move_with_the_gap_between_the_branches(evidence, *, rule=contrast):
    """As symbols; then two words of which both branches favour the truth, and it loses."""
    import sympy

    (l1, l2, m1, m2), alpha = additive()
    found = rule(np.array([l1, l2], dtype=object), np.array([m1, m2], dtype=object), alpha, 0)
    slope = sympy.diff(found[0] - found[1], alpha)
    evidence.true("slope of the log-odds", sympy.expand(slope - (l1 - l2 - m1 + m2)) == 0)
    logits, minus = np.array([1.0, 0.0]), np.array([2.0, 0.0])  # the first word is the truth
    odds = np.subtract(*rule(logits, minus, 2.0, 0.1))
    evidence.expect("log-odds of the truth at alpha = 2", odds, equals=-1, error=8 * EPS)
    evidence.note("l = (1, 0), l^- = (2, 0): both branches favour the first word; at alpha = 2 the second wins.")
