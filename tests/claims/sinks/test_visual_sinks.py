"""Visual attention redistribution as an operator on rows of attention (VAR, Kang et al., 2025, section 5).

What the paper says. In image-centric heads, sinks give a share p of their attention to the visual tokens that are no
sinks, in proportion to what those have. Without this choice of heads the model breaks down (table 4). What is moved is
the surplus of irrelevant visual sink tokens.

Notation. V is a row's mass on visual tokens, W that on visual tokens that are no sinks (`receivers`), r = W / V, S the
mass on all sinks, Omega = p S. A row is image-centric if V >= 0.2 and r >= rho.

Scope. Rows of text queries, any number of tokens. Proofs take one token for each kind and two receivers: only sums and
one ratio enter. What the operator does to LLaVA is not run here.
"""

from fractions import Fraction

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import normalised
from theory.sinks.visual_sinks import (
    LEAST,
    amplification,
    amplification_bound,
    mass,
    recycled_share,
    redistribute,
    released,
    selected,
    var,
)

PAPER = "kang2025visual"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)
shares = st.sampled_from([0.0, 0.25, 0.4, 0.5, 0.6, 0.9, 1.0])

SINKS = np.array([True, True, False, False, False])
VISUAL = np.array([False, True, True, True, False])
"""Tokens of the proofs: a text sink, a visual sink, two receivers, other text."""


def draw(seed, n=3, m=12):
    """Rows with planted sinks; kinds of tokens are drawn too, the first a text sink, the second a receiver."""
    rng = np.random.default_rng(seed)
    sinks, visual = rng.random(m) < 0.3, rng.random(m) < 0.6
    sinks[0], visual[0], sinks[1], visual[1] = True, False, False, True
    logits = rng.uniform(0, 3) * rng.standard_normal((n, m)) + rng.uniform(0, 4) * sinks
    return normalised(np.exp(logits)), sinks, visual


def over_all_visual(A, sinks, visual, p):
    """The budget shared out over the mass on all visual tokens, so that some of it is lost."""
    grown = A * (1 + p * mass(A, sinks) / mass(A, visual))
    return np.where(sinks, A * (1 - p), np.where(visual & ~sinks, grown, A))


def equally(A, sinks, visual, p):
    """The budget in equal parts."""
    receivers = visual & ~sinks
    part = p * mass(A, sinks) / int(receivers.sum())
    return np.where(sinks, A * (1 - p), np.where(receivers, A + part, A))


def sinks_untouched(A, sinks, visual, p):
    return np.where(sinks, A, redistribute(A, sinks, visual, p))


rows = Claim(
    paper=PAPER,
    slug="rows-stay-distributions",
    where="Section 5 (implicit)",
    says="Redistribution keeps each row's sum, all weights of text that is no sink, and the proportions of the visual "
    "tokens that are no sinks; it adds ln(1 - p) to the logits of sinks and ln(1 + Omega / W) to those of receivers.",
    formula=r"\check\alpha_{ij} = (1 - p) \alpha_{ij} \text{ on sinks}, \quad"
    r" \check\alpha_{ij} = \alpha_{ij} \Bigl( 1 + \frac{\Omega}{W} \Bigr) \text{ on receivers}",
    gap="Rows with W = 0 have no receiver and stay as they are.",
)
WRONG = {
    "shared out over all visual tokens": {"operator": over_all_visual},
    "sinks keep everything": {"operator": sinks_untouched},
}


@rows.check("proof", controls={**WRONG, "in equal parts": {"operator": equally}})
def test_sums_proportions_and_other_text_are_kept(evidence, *, operator=redistribute):
    """Five tokens of symbolic weight; the code's own lines run on them."""
    import sympy

    weights = np.array(sympy.symbols("t s u v w", positive=True), dtype=object)
    p = sympy.symbols("p", positive=True)
    A = weights / weights.sum()
    after = operator(A, SINKS, VISUAL, p)
    evidence.true("the row sums to 1", sympy.simplify(after.sum() - 1) == 0)
    evidence.true("other text is kept", sympy.simplify(after[4] - A[4]) == 0)
    evidence.true("receivers keep their ratio", sympy.simplify(after[2] / after[3] - weights[2] / weights[3]) == 0)
    evidence.true("sinks keep 1 - p", all(sympy.simplify(after[i] - (1 - p) * A[i]) == 0 for i in (0, 1)))


@rows.check("property", controls={**WRONG, "in equal parts": {"operator": equally}})
@given(seed=seeds, p=shares)
def test_it_is_a_shift_of_logits(evidence, seed, p, *, operator=redistribute):
    """Softmax of shifted logits against the operator, p from 0 to 1 (at 1 a sink's logit falls to minus infinity)."""
    A, sinks, visual = draw(seed)
    receivers = visual & ~sinks
    with np.errstate(divide="ignore"):
        shift = np.where(sinks, np.log(1 - p), 0) + receivers * np.log1p(p * mass(A, sinks) / mass(A, receivers))
    after = operator(A, sinks, visual, p)
    evidence.expect("difference from softmax", abs(after - normalised(A * np.exp(shift))).max(), at_most=64 * EPS)
    evidence.expect("row sum", after.sum(axis=-1), equals=1, error=32 * EPS)


choice = Claim(
    paper=PAPER,
    slug="selection-bounds-amplification",
    where="Section 5, image-centric heads; Table 4",
    says="In image-centric rows no weight grows by more than 1 + p (1 / (0.2 rho) - 1); in other rows growth has no "
    "bound, so that heads which look at text would be turned into heads that look at the image.",
    formula=r"V \ge 0.2,\ r \ge \rho \;\Rightarrow\; \frac{\Omega}{W} \le p \Bigl( \frac{1}{0.2 \rho} - 1 \Bigr)",
    gap="Why the choice of heads matters, not that scores fall to 0.0 without it: see selection-prevents-collapse.",
)


@choice.check(
    "proof", controls={"a bound with p^2": {"bound": lambda p, rho, least: amplification_bound(p**2, rho, least)}}
)
def test_growth_is_bounded_in_image_centric_rows(evidence, *, bound=amplification_bound):
    """W = rho least (1 + e) < 1 and S = (1 - W) / (1 + z), e, z > 0: the bound less the growth is a positive sum.

    rho least = 1 / (1 + b) and e = b / (1 + t) cover all such W, p = 1 / (1 + q) all shares.
    """
    import sympy

    b, t, z, q = sympy.symbols("b t z q", positive=True)
    floor, p = 1 / (1 + b), 1 / (1 + q)
    received = floor * (1 + b / (1 + t))
    growth = amplification((1 - received) / (1 + z), received, p)
    rho = sympy.symbols("rho", positive=True)
    gap = sympy.factor(sympy.simplify(bound(p, rho, floor / rho) - growth))
    evidence.true("bound above growth", gap.is_positive is True)


@choice.check(
    "property",
    controls={"without the least mass": {"least": 0.0}, "without rho": {"rho": 0.0}},
)
@given(
    seen=st.one_of(st.just(0.2), st.floats(0.001, 1)), share=st.one_of(st.just(0.5), st.floats(0.001, 1)),
    text=st.one_of(st.just(1.0), st.floats(0, 1)), p=st.sampled_from([0.4, 0.6, 1.0]),
)  # fmt: skip
def test_no_selected_row_exceeds_the_bound(evidence, seen, share, text, p, *, rho=0.5, least=LEAST):
    """V, r and the text sink's part of the rest are drawn, and the search drives the growth up; rho = 1/2."""
    A = np.array([[(1 - seen) * text, seen * (1 - share), seen * share, 0.0, (1 - seen) * (1 - text)]])
    after = var(A, SINKS, VISUAL, p, rho, least)
    growth = after[0, 2] / A[0, 2]
    # W carries a few roundings, and so does the comparison that lets the row pass.
    evidence.expect("growth over its bound", growth / amplification_bound(p, 0.5, LEAST), at_most=1 + 32 * EPS)


@choice.check(
    "exact", scope="equality", controls={"half of the rest on other text": {"rest": (Fraction(2, 5), Fraction(2, 5))}}
)
def test_the_bound_is_attained_by_a_row_of_sinks(evidence, *, rest=(Fraction(4, 5), Fraction(0))):
    """V = 1/5, r = rho = 1/2, the rest on a text sink, as fractions. At V = W = 1e-6 the growth is 4e5, and so on."""
    p, rho = Fraction(2, 5), Fraction(1, 2)
    A = np.array([[rest[0], Fraction(1, 10), Fraction(1, 10), Fraction(0), rest[1]]], dtype=object)
    evidence.true("the row is image-centric", bool(selected(A, SINKS, VISUAL, rho, Fraction(1, 5)).all()))
    growth = redistribute(A, SINKS, VISUAL, p)[0, 2] / A[0, 2]
    evidence.expect("growth less its bound", growth - amplification_bound(p, rho, Fraction(1, 5)), equals=0, error=0)
    tiny = Fraction(1, 10**6)
    A = np.array([[1 - tiny, Fraction(0), tiny, Fraction(0), Fraction(0)]], dtype=object)
    unbounded = redistribute(A, SINKS, VISUAL, p)[0, 2] / tiny
    evidence.expect("growth where V is 1e-6", unbounded - (1 + p * (1 - tiny) / tiny), equals=0, error=0)


recycled = Claim(
    paper=PAPER,
    slug="recycles-visual-sinks",
    where="Abstract",
    says="The attention that is redistributed is the surplus of irrelevant visual sink tokens.",
    formula=r"\Omega = p \sum_{j \in \text{visual sinks}} \alpha_{ij}",
    gap="How much BOS has in LLaVA's image-centric heads is not measured here.",
    repair="By its definition Omega takes from text sinks too: in an image-centric row with b on text sinks, visual "
    "sinks give at most (1 - rho)(1 - b) / ((1 - rho)(1 - b) + b) of it, a third for b = rho = 1/2.",
)


@recycled.refutation(
    "exact", controls={"no text sink": {"weights": (0, Fraction(3, 5), Fraction(3, 10), 0, Fraction(1, 10))}}
)
def test_a_row_without_any_visual_sink_has_a_budget(
    evidence, *, weights=(Fraction(3, 5), 0, Fraction(3, 10), 0, Fraction(1, 10))
):
    """Six tenths on BOS, none on a visual sink, three on the image: it is image-centric, and all of Omega is BOS's."""
    A = np.array([[Fraction(x) for x in weights]], dtype=object)
    given_by_image, given = mass(A, SINKS & VISUAL)[0, 0], mass(A, SINKS)[0, 0]
    evidence.expect("budget for p = 1", given, at_least=Fraction(1, 2))
    evidence.expect("share of visual sinks in it", given_by_image / given, at_most=Fraction(1, 2))
    evidence.counterexample("text sink, visual sink, image, image, text", weights=weights, budget=given)


@recycled.check(
    "proof", controls={"a smaller bound": {"most": lambda text, rho: recycled_share(text, 1 - (1 - rho) ** 2)}}
)
def test_visual_sinks_give_at_most_their_share(evidence, *, most=recycled_share):
    """Visual sinks have (1 - rho) V / (1 + y) with V = (1 - b) / (1 + x), x, y > 0; equality at x = y = 0."""
    import sympy

    x, y, s, c = sympy.symbols("x y s c", positive=True)
    text, rho = 1 / (1 + s), 1 / (1 + c)
    given = (1 - rho) / (1 + y) * (1 - text) / (1 + x)
    gap = sympy.factor(sympy.simplify(most(text, rho) - given / (given + text)))
    evidence.true("the bound is not exceeded", gap.is_positive is True)
    evidence.true("it is attained", sympy.simplify(gap.subs({x: 0, y: 0})) == 0)
    evidence.note(f"With half of a row on BOS and rho = 1/2 at most {float(most(0.5, 0.5)):.0%}.")


code = Claim(
    paper=PAPER,
    slug="released-code",
    where="Released code: logic.py, default p = 0.6 and rho = 0.5",
    says="The released code is the method, its p and rho those of the paper.",
    formula=r"\check\alpha^{\text{code}}(p, \rho) = \check\alpha(p, \rho)",
    gap="The operator on one layer; which layers it changes and batches of several inputs are not compared.",
    repair="It is with 1 - p and 1 - rho in their place, on layers with a visual sink: its p is what sinks keep, its "
    "rho bounds the sinks' part of the visual mass, and without a visual sink it does nothing.",
)
ROW = (0.3, 0.1, 0.2, 0.2, 0.2)


@code.refutation("exact", controls={"p = 1/2": {"p": 0.5}})
def test_the_same_p_moves_another_budget(evidence, *, p=0.6):
    """0.3 on a text sink, 0.1 on a visual one: by the paper the image gets p 0.4 more, by the code (1 - p) 0.4."""
    A = np.array([ROW])
    gained = [float(mass(one(A, SINKS, VISUAL, p, 0.5) - A, VISUAL & ~SINKS)[0, 0]) for one in (var, released)]
    evidence.expect("paper's gain of the image less the code's", gained[0] - gained[1], at_least=0.08 - 16 * EPS)
    evidence.counterexample("text sink, visual sink, image, image, text", weights=ROW, gains=gained)


@code.refutation("exact", scope="rho", controls={"rho = 1/2": {"rho": 0.5}})
def test_the_same_rho_selects_other_rows(evidence, *, rho=0.8):
    """Half of the image's weight on a sink, 1/2 < rho = 0.8: no image-centric row by the paper, one by the code."""
    A = np.array([[0.3, 0.2, 0.1, 0.1, 0.3]])
    moved = [float(abs(one(A, SINKS, VISUAL, 0.5, rho) - A).max()) for one in (var, released)]
    evidence.expect("weight moved by the paper's rule", moved[0], at_most=0.0)
    evidence.expect("weight moved by the code's", moved[1], at_least=0.1)
    evidence.counterexample("text sink, visual sink, image, image, text", weights=A[0].tolist(), rho=rho)


@code.check(
    "property",
    controls={
        "the same p": {"other": lambda p, rho: (p, 1 - rho)},
        "the same rho": {"other": lambda p, rho: (1 - p, rho)},
    },
)
@given(seed=seeds, p=shares, rho=st.sampled_from([0.3, 0.5, 0.8]))
def test_with_both_turned_round_they_agree(evidence, seed, p, rho, *, other=lambda p, rho: (1 - p, 1 - rho)):
    """Random rows with a visual sink, those left out whose r is so close to rho that the code's 1e-6 decides."""
    A, sinks, visual = draw(seed)
    sinks[2], visual[2] = True, True
    share = mass(A, sinks & visual) / mass(A, visual)
    assume((abs(share - (1 - rho)) > 1e-4).all())
    difference = var(A, sinks, visual, p, rho) - released(A, sinks, visual, *other(p, rho))
    evidence.expect("largest difference", abs(difference).max(), at_most=64 * EPS)
