"""Does a bias on the first token control the entropy of attention? (ZeroTuning, Han et al., 2025, version 2)

What the paper says. Version 2 of the abstract: a bias on the first token's logit monotonically controls the entropy of
the downstream attention distribution. Version 3 no longer says so.

Notation. As in test_zerotuning.py; `rest` is the entropy H_r of r, nats, N = e^rest the effective number of the other
tokens. `Downstream` may mean the whole row, or the tokens after the first; their distribution r no gamma changes
(sharpens-or-flattens), so that here they are taken as they are, not normalised.

Scope. One row. The theorem in the paper's body was not available to us; these are readings of the abstract.
"""

import numpy as np
import pytest
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks.measures import entropy
from theory.sinks.zerotuning import certify_entropy_falls, fair_share, others_entropy, peak, row_entropy, tuned

PAPER = "han2025zerotuning"
EPS = np.finfo(float).eps
GAMMAS = (0.5, 1.0, 2.0)


def whole(A):
    return entropy(A)


def others(A):
    return entropy(A[..., 1:])


def others_normalised(A):
    return entropy(A[..., 1:] / A[..., 1:].sum(axis=-1, keepdims=True))


def entropies(row, measure, gammas):
    """Entropy of a row after tuning by each gamma."""
    return [float(measure(tuned(np.array(row), gamma))) for gamma in gammas]


def exceeds_both_ends(evidence, row, measure, gammas):
    """The middle gamma gives more entropy than those on its two sides: a monotone function cannot."""
    first, middle, last = entropies(row, measure, gammas)
    rounding = 8 * len(row) * EPS
    evidence.expect("middle above the lower gamma", middle - first, at_least=rounding, unit="nats")
    evidence.expect("middle above the upper gamma", middle - last, at_least=rounding, unit="nats")
    evidence.counterexample("entropy is largest between", row=row, gammas=gammas, entropies=(first, middle, last))


monotone = Claim(
    paper=PAPER,
    slug="monotone-entropy",
    where="Abstract (version 2), of the whole row",
    says="The entropy of the attention distribution is a monotone function of the bias on the first logit.",
    formula=r"\gamma \mapsto H(a'(\gamma)) \text{ monotone}",
    gap="Certified for four tokens with logits in a box; the proof takes the entropy H_r of the others as given.",
    repair="It falls as gamma rises wherever the first token has more than its fair share 1 / (1 + e^(H_r)), so always "
    "where it has half of the attention, and rises where it has less.",
)


@monotone.refutation(
    "exact",
    controls={
        "a sink with nine tenths": {"row": (0.9, 0.05, 0.05)},
        "the others by themselves": {"measure": others_normalised},
    },
)
def test_three_equal_tokens_lose_entropy_either_way(evidence, *, row=(1 / 3, 1 / 3, 1 / 3), measure=whole):
    """A row that is uniform has the largest entropy there is; gamma = 1/2 and 2 both lower it."""
    exceeds_both_ends(evidence, row, measure, GAMMAS)


def rounded(number):
    """Without the first token's own place in the row."""
    return 1 / number


@monotone.check("proof", controls={"1 / N for the fair share": {"share": rounded}})
def test_the_entropy_has_one_peak_at_the_fair_share(evidence, *, share=fair_share):
    """H(p) is strictly concave with slope ln((1 - p) / p) - H_r, which is 0 at the fair share; p rises with gamma."""
    import sympy

    p, N, x = sympy.symbols("p N x", positive=True)
    H = row_entropy(p, sympy.log(N), sympy.log)
    slope, bend = sympy.diff(H, p), sympy.diff(H, p, 2)
    evidence.true(
        "the slope by p", sympy.simplify(slope - (sympy.log((1 - p) / p) - sympy.log(N)).expand(force=True)) == 0
    )
    in_odds = sympy.factor(sympy.simplify(bend.subs(p, 1 / (1 + x))))
    evidence.true("concave for every 0 < p < 1", in_odds.is_negative is True)
    at_peak = sympy.logcombine(slope.subs(p, share(N)), force=True)
    evidence.true("no slope at the fair share", sympy.simplify(at_peak) == 0)
    # One or more effective tokens: the fair share is at most one half.
    evidence.true("one half is enough", (sympy.Rational(1, 2) - fair_share(1 + x)).factor().is_positive is True)


@monotone.check("certified", scope="four tokens, half or more", controls={"an eighth to a half": {"lead": (-2.0, 0.0)}})
def test_the_entropy_falls_for_every_sink_of_four_tokens(evidence, *, lead=(0.0, 12.0)):
    """Interval arithmetic over the logits: the first token has from 1/2 to 1 - 6e-6, the others differ by up to e^6."""
    pytest.importorskip("flint", reason="needs python-flint for interval arithmetic")
    found = certify_entropy_falls(lead, 3.0)
    evidence.note(f"{found.boxes} boxes.")
    if found.counterexample:
        evidence.note(f"The entropy rises at lead, t, u = {', '.join(f'{x:g}' for x in found.counterexample)}.")
    evidence.true("proved on every box", found.proved)


def of_whole_row(A):
    """H of the whole row in place of H_r."""
    return entropy(A)


def of_others(A):
    return others_normalised(A)


@monotone.check(
    "property",
    controls={"the entropy of the whole row for H_r": {"rest": of_whole_row}, "the other way round": {"sign": -1}},
)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), first=st.floats(-4, 6), spread=st.floats(0, 3),
    side=st.sampled_from([-1, 1]), step=st.floats(0.01, 2),
)  # fmt: skip
def test_on_each_side_of_the_peak_it_is_monotone(
    evidence, seed, n, first, spread, side, step, *, rest=of_others, sign=1
):
    """Two gammas on one side of gamma*, anywhere up to e^4 away: the nearer one has more entropy."""
    s = spread * np.random.default_rng(seed).standard_normal(n)
    s[0] = first
    A = np.exp(s) / np.exp(s).sum()
    top = float(peak(A[0], np.exp(rest(A))))
    near, far = (float(whole(tuned(A, top * np.exp(side * (0.02 + k * step))))) for k in (1, 2))
    evidence.expect("nearer minus farther", sign * (near - far), at_least=-8 * n * EPS, unit="nats")


downstream = Claim(
    paper=PAPER,
    slug="monotone-entropy-of-the-rest",
    where="Abstract (version 2), of the tokens after the first, not normalised",
    says="The sum of -a_i' ln a_i' over the tokens after the first is monotone in the bias on the first logit.",
    formula=r"U = -\sum_{i \ge 1} a_i' \ln a_i' = (1 - p) \bigl( H_r - \ln (1 - p) \bigr)",
    gap="Not an entropy, as the a_i' do not sum to 1; normalised, it is H_r for every gamma.",
    repair="It falls as gamma rises, for all gamma, exactly where the others have an entropy of one nat or more.",
)


@downstream.refutation("exact", controls={"nine equal others": {"row": (0.1, *[0.1] * 9)}})
def test_with_one_other_token_it_rises_and_falls(evidence, *, row=(0.5, 0.5)):
    """Two tokens, gamma = 1/3, 1 and 9: the other one has 3/4, 1/2 and 1/10, and -x ln x peaks at 1/e."""
    exceeds_both_ends(evidence, row, others, (1 / 3, 1.0, 9.0))


@downstream.check("proof", controls={"three quarters of a nat": {"least": (3, 4)}})
def test_one_nat_is_just_enough(evidence, *, least=(1, 1)):
    """dU/dp = 1 + ln(1 - p) - H_r with H_r = least + h, 1 - p = 1 / (1 + y): negative for all y > 0, h >= 0.

    With h = 0 it tends to 0 as p does: no smaller bound on H_r would do.
    """
    import sympy

    p, y = sympy.symbols("p y", positive=True)
    h = sympy.symbols("h", nonnegative=True)
    U = others_entropy(p, sympy.Rational(*least) + h, sympy.log)
    slope = sympy.simplify(sympy.diff(U, p).subs(p, y / (1 + y)))
    slope = sympy.expand_log(slope, force=True)
    evidence.true("negative for every p", slope.is_negative is True)
    evidence.true("the bound is sharp", sympy.limit(slope.subs(h, 0), y, 0) == 0)
