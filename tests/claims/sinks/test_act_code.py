"""Attention Calibration while a model reads and writes, and the released code (ACT; Yu et al., 2024).

What the paper says. Attention is calibrated on the fly, in an input-adaptive manner, without training. The released
code, github.com/GATECH-EIC/ACT, does so in its model files for tasks with one answer, and once more for MT-Bench.

Notation. As in test_act.py, which has the rule: A_tk weights, a_k averages, tau = 0.1 in the code, beta = 0.4.

Scope. One head's map. `released` is the released function, described anew from its code; nothing of it is run here.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.positions import causal
from theory.sinks.act import BETA, RELEASED_TAU, calibrate, later_sinks, lower, random_maps, released
from theory.sinks.measures import importance

PAPER = "yu2024unveiling"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)

# -- A3: on the fly ----------------------------------------------------------------------------------------------------

on_the_fly = Claim(
    paper=PAPER,
    slug="on-the-fly",
    where="Abstract; models/llama_modelling_aug.py, mt-bench/gen_model_answer.py",
    says="During inference ACT adapts the attention of a chosen head to the input at hand, without training, also "
    "while the model writes its answer.",
    formula=r"A' = f(A_{\le t})",
    repair="For a prompt that is processed whole and whose last row alone is read, as in its classification tasks.",
    gap="Which heads are chosen is fixed beforehand, by labelled examples: see head-search.",
)
SHORT = np.array([[1.0, 0.0], [0.5, 0.5]])


def by_the_rule(A):
    return calibrate(A, tau=RELEASED_TAU)


def longer(A, n):
    """n tokens, of which those after A see the first alone."""
    new = np.zeros((n, n))
    new[: len(A), : len(A)] = A
    new[len(A) :, 0] = 1
    return new


def by_rows_so_far(A, beta=BETA, tau=RELEASED_TAU):
    """Row t is calibrated with averages over the rows up to t."""
    return np.stack([calibrate(A[: t + 1, : t + 1], beta, tau)[t] @ np.eye(t + 1, len(A)) for t in range(len(A))])


@on_the_fly.refutation(
    "exact", scope="later tokens", controls={"averages over the rows so far": {"rule": by_rows_so_far}}
)
def test_what_happens_to_a_row_depends_on_tokens_that_come_later(evidence, *, rule=by_the_rule):
    """The second of two tokens is a sink. With four more that ignore it, it is none, and its row stays as it was."""
    alone, within = rule(SHORT)[1], rule(longer(SHORT, 6))[1, :2]
    evidence.expect("change of the second row", abs(alone - within).max(), equals=(1 - BETA) / 2, error=4 * EPS)
    evidence.counterexample("A prefix and its continuation", prefix=SHORT.tolist(), alone=alone, within=within)


def first_to_last(row, beta=BETA, tau=RELEASED_TAU):
    """The rule for one row: its first key spared, no weight set by hand."""
    return lower(row, (row[0] > tau) & (np.arange(row.shape[-1]) > 0), beta)


@on_the_fly.refutation(
    "exact", scope="cached decoding", controls={"the rule, applied to the row": {"step": first_to_last}}
)
def test_in_cached_decoding_the_first_weight_is_set_to_one(evidence, *, step=released):
    """One query: the line that restores the first row of a prompt acts on the row of the token being written."""
    for row in ([0.5, 0.5], [0.05, 0.05, 0.3, 0.6]):
        total = float(step(np.array([row])).sum())
        evidence.expect("sum of the row", total, at_least=1.3)
        evidence.counterexample("One row of cached decoding", row=row, becomes=step(np.array([row]))[0], sum=total)
    evidence.note("The code for MT-Bench, where answers are written with a cache, has the same lines.")


@on_the_fly.check("property", controls={"places fixed beforehand": {"find": lambda A: np.arange(A.shape[-1]) == 8}})
@given(seed=seeds, n=st.integers(12, 60), weight=st.floats(0.6, 0.95), data=st.data())
def test_a_sink_is_found_where_this_input_has_it(evidence, seed, n, weight, data, *, find=later_sinks):
    """A key with 0.6 to 0.95 of each row that sees it, at any place; the rest of each row is even."""
    place = data.draw(st.integers(1, n - 2), label="place")
    rows, even = np.arange(n)[:, None], causal(n) / np.arange(1, n + 1)[:, None]
    A = np.where(rows >= place, (1 - weight) * even + weight * (np.arange(n) == place), even)
    evidence.expect("keys flagged wrongly", (find(A) != (np.arange(n) == place)).sum(), at_most=0)
    evidence.expect("sum of the last row", calibrate(A)[-1].sum(), equals=1, error=8 * n * EPS)


# -- the released function ---------------------------------------------------------------------------------------------

spares = Claim(
    paper=PAPER,
    slug="spares-the-first-token",
    where="Abstract (sinks at later tokens); models/llama_modelling_aug.py",
    says="What is spared is the first token: the released function lowers every later token above the threshold.",
    formula=r"A'_{tk} = \beta A_{tk} \quad \text{for all } k \ge 2 \text{ with } \bar a_k > \tau",
    repair="Where the first token is itself above the threshold.",
    gap="How often the first token of a chosen head is below 0.1 in the models used.",
)


def two_later_sinks(first):
    """21 tokens: the second and third hold 0.4 each of all later rows, the first `first`, the rest is even."""
    A = random_maps(1, 21, 0.0, np.random.default_rng(0))[0]
    for t in range(3, 21):
        A[t, : t + 1] = (0.2 - first) / (t - 2)
        A[t, :3] = first, 0.4, 0.4
    A[1, :2], A[2, :3] = (first, 1 - first), (first, 0.5, 0.5 - first)
    return A


@spares.refutation(
    "exact", controls={"a first token above the threshold": {"first": 0.15}, "the rule": {"function": by_the_rule}}
)
def test_the_first_later_sink_is_raised_in_its_place(evidence, *, function=released, first=0.05):
    """The first token holds 0.05, below 0.1. The code drops the first of what it found: the second token gains."""
    A = two_later_sinks(first)
    ratio = function(A)[-1] / A[-1]
    evidence.expect("attention to the second token over what it was", ratio[1], at_least=1)
    evidence.counterexample(
        "21 tokens, two later sinks", average=np.round(importance(A)[:3], 4).tolist(), factors=np.round(ratio[:3], 4)
    )


def any_map(seed, n, sharpness):
    return random_maps(1, n, sharpness, np.random.default_rng(seed))[0]


def with_first(seed, n, sharpness):
    """A random map whose first token is above 0.1: half of it is of a map that sees the first alone."""
    return (any_map(seed, n, sharpness) + (np.arange(n) == 0)) / 2


@spares.check("property", controls={"first token as it comes": {"maps": any_map}})
@given(seed=seeds, n=st.integers(2, 40), sharpness=st.floats(0, 4), beta=st.floats(0, 1))
def test_with_a_first_token_above_it_the_function_is_the_rule(evidence, seed, n, sharpness, beta, *, maps=with_first):
    """Against the closed form at tau = 0.1, to rounding; the first row is 1 by either."""
    A = maps(seed, n, sharpness)
    difference = released(A, beta) - calibrate(A, beta, RELEASED_TAU)
    evidence.expect("largest difference", np.nan_to_num(difference, nan=1), equals=0, error=16 * n * EPS)


log = Claim(
    paper=PAPER,
    slug="log-of-the-search",
    where="ours, on calibration_results/cal.log and main.py",
    says="The released log is that of 900 questions, 100 from each of nine sets: its overall accuracy fits its nine "
    "others if one of them, printed as 0.26, is 65 right answers of 100 divided by 250.",
    formula=r"559 / 900 = 0.6211, \quad 559 = 100 \, (5.20 - 0.26) + 250 \cdot 0.26",
    gap="Which of the columns is which set is not in the log: its two lines have the same numbers in another order.",
)
LOG = (
    ("0.1000", "0.3600", "0.6200", "0.7100", "0.9300", "0.4800", "0.7900", "0.2600", "0.9500"),
    ("0.1000", "0.7900", "0.9500", "0.9300", "0.7100", "0.2600", "0.4800", "0.6200", "0.3600"),
)
OVERALL = "0.6211"


def places_that_fit(accuracies, asked, divisor):
    """The places whose accuracy may have been divided by `divisor` where all others were by `asked`."""
    values = [Fraction(one) for one in accuracies]
    totals = [asked * (sum(values) - one) + divisor * one for one in values]
    return [i for i, total in enumerate(totals) if f"{float(total / (9 * asked)):.4f}" == OVERALL]


@log.check("exact", controls={"all divided by 100": {"divisor": 100}, "each set of 250 questions": {"asked": 250}})
def test_one_accuracy_was_divided_by_250(evidence, *, asked=100, divisor=250):
    """main.py divides the accuracy of CB by 250, the size of its training set, however many questions were asked."""
    for line in LOG:
        places = places_that_fit(line, asked, divisor)
        evidence.expect("places that fit", len(places), equals=1, error=0)
        evidence.true("it is the 0.26", line[places[0]] == "0.2600")
    evidence.true("both lines have the same numbers", sorted(LOG[0]) == sorted(LOG[1]))
    evidence.note("An accuracy of 0.65 is printed as 0.26. The overall accuracy is not affected, nor is the search.")
