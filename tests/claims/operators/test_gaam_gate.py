"""Gaussian adaptive attention as a layer: normalisation, tokens, parameters, company (Ioannides, Chadha, Elkins, 2024).

What the paper says. A learnable mean offset and variance make a gate that adapts to the data's own mean and variance;
it is compatible with dot-product attention and has few parameters; its transformer is "designed to enhance information
aggregation" (abstract).

Notation. x (..., n) features; weights w like x, output x * w (released) or x * G (paper); offset is delta, width is c.

Scope. Identities of the operator, of both the paper's form and the released one; nothing is trained here.
"""

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import gaussian_adaptive, gaussian_adaptive_paper, softmax
from theory.operators.gaam import dot_product_parameters, effective_parameters, mixture, multi_head, parameters

PAPER = "ioannides2024gaam"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)
no_shrinking = settings(phases=(Phase.generate, Phase.target))  # a smaller seed is no simpler case

adapts = Claim(
    paper=PAPER,
    slug="gate-follows-the-data",
    where="Abstract: 'integrates learnable mean and variance into its attention mechanism'",
    says="The gate adapts to mean and scale of the data: features shifted by a and scaled by s keep their weights, "
    "with an offset that is scaled as well.",
    formula=r"w(s x + a;\, s \delta,\, c) = w(x;\, \delta,\, c)",
    gap="The learned offset is a number in the data's units, so that it does not scale by itself: for delta != 0 the "
    "gate is not invariant to scale, which the control shows.",
)


@adapts.check("property", controls={"offset left in its old units": {"unit": lambda s: 1.0}})
@no_shrinking
@given(
    scale=st.floats(0.1, 10),
    shift=st.floats(-10, 10),
    offset=st.floats(0.5, 2),
    width=st.floats(0.5, 3),
    seed=seeds,
)
def test_weights_follow_shift_and_scale(evidence, scale, shift, offset, width, seed, *, unit=lambda s: s):
    """Both forms, on eight random features, with the small constant in the variance left out."""
    x = np.random.default_rng(seed).standard_normal(8)
    # Cancellation in x - mean: relative error eps |shift| / |scale sd|; exponents multiply it.
    slack = (1 + abs(shift) / (scale * x.std())) * (abs(x).max() / x.std() + offset / x.std() + 1) ** 2
    budget = 64 * EPS * slack / min(1, width) ** 2
    both = (
        ("released", lambda x, d: gaussian_adaptive(x, np.array([d]), np.array([width]), eps=0.0)),
        ("paper", lambda x, d: gaussian_adaptive_paper(x, d, width, eps=0.0)),
    )
    for name, weights in both:
        moved = weights(scale * x + shift, unit(scale) * offset)
        evidence.expect(f"change of a weight, {name} form", moved - weights(x, offset), equals=0, error=budget)


sum_to_one = Claim(
    paper=PAPER,
    slug="weights-sum-to-one",
    where="README, released code ('attention weights')",
    says="The weights of each chunk sum to 1, whatever the features and the parameters.",
    formula=r"\sum_j w_j = 1, \qquad w = \frac{m}{\max(\sum_j m_j, \varepsilon)}, \; m = \prod_k g_k",
    gap="The paper's own form has no normalisation; the statement is about the released code.",
    repair="Wherever the Gaussians sum to at least epsilon = 1e-8 over the chunk; or without the floor, in logarithms.",
)


@sum_to_one.refutation("exact", controls={"offset within the data": {"offset": 0.0}})
def test_an_offset_far_from_the_data_switches_attention_off(evidence, *, offset=20.0):
    """Two features -1 and 1, K = 1, c = 1: the sum falls below the floor, and the gate silently passes nothing."""
    weights = gaussian_adaptive(np.array([-1.0, 1.0]), np.array([offset]), np.array([1.0]))
    evidence.counterexample("weights that sum to nothing", features=[-1, 1], offset=20, width=1, total=weights.sum())
    evidence.expect("sum of the weights", weights.sum(), less_than=0.5)


def floored(x, offset, width):
    """The released operator, and the sum of its Gaussians before the floor."""
    z = (x[:, None] - x.mean() - offset) / x.std(ddof=1)
    bells = np.exp(-(z**2) / (2 * width**2)) / np.sqrt(2 * np.pi * width**2)
    return gaussian_adaptive(x, offset, width), bells.prod(axis=1).sum()


@sum_to_one.check(
    "property",
    controls={
        "the paper's form": {"weights": lambda x, d, c: (gaussian_adaptive_paper(x, d[0], c[0]), 1.0)},
        "a floor of 1": {"weights": lambda x, d, c: (gaussian_adaptive(x, d, c, eps=1.0), 1.0)},
    },
)
@no_shrinking
@given(parameters=st.lists(st.tuples(st.floats(-4, 4), st.floats(0.4, 3)), min_size=1, max_size=5), seed=seeds)
def test_weights_sum_to_one_above_the_floor(evidence, parameters, seed, *, weights=floored):
    """Also many small Gaussians: cases below the floor are left out here, and counted as none."""
    offset, width = np.array(parameters).T
    found, before = weights(np.random.default_rng(seed).standard_normal(10), offset, width)
    if before > 2e-8:
        evidence.expect("sum of the weights", found.sum(), equals=1, error=10 * EPS)


aggregates = Claim(
    paper=PAPER,
    slug="aggregates-across-tokens",
    where="Abstract: 'designed to enhance information aggregation'",
    says="What the layer returns at a token depends on the other tokens, as it does for dot-product attention.",
    formula=r"\exists\, s \ne t: \quad \frac{\partial y_t}{\partial x_s} \ne 0",
    gap="Layers around the gate (convolutions in the authors' example) may mix tokens; this is about the gate itself.",
    repair="With the axis along tokens, where the other tokens enter through their mean and variance alone (and, in "
    "the released form, through one common normaliser): two numbers for each feature.",
)


def dot_product(x, offset, width):
    """Self-attention of x in the gate's place."""
    return softmax(x, x) @ x


def gated(x, offset, width):
    """The released gate along features, one head."""
    return x * gaussian_adaptive(x, offset, width)


@aggregates.refutation("exact", controls={"dot-product attention": {"layer": dot_product}})
def test_two_tokens_do_not_see_each_other(evidence, *, layer=gated):
    """Two tokens of two features, the axis along features: replacing one leaves the other's output bit for bit."""
    x = np.array([[1.0, 2.0], [3.0, 5.0]])
    other = np.array([[1.0, 2.0], [-4.0, 7.0]])
    parameters = np.array([0.3, -0.2]), np.array([1.0, 2.0])
    change = abs(layer(x, *parameters)[0] - layer(other, *parameters)[0]).max()
    evidence.counterexample("token 1 gets the same output", tokens=x.tolist(), instead=other.tolist(), change=change)
    evidence.expect("change of the first output", change, equals=0, error=0)


def one_by_one(x, offset, width):
    """The paper's gate along tokens, axis 0."""
    return x * gaussian_adaptive_paper(x, offset, width, axis=0)


@aggregates.check(
    "property",
    controls={"dot-product attention": {"layer": dot_product}},
)
@no_shrinking
@given(offset=st.floats(-1, 1), width=st.floats(0.5, 3), seed=seeds)
def test_along_tokens_only_mean_and_variance_of_the_others_matter(evidence, offset, width, seed, *, layer=one_by_one):
    """Other tokens replaced by ones of the same mean and variance: nothing changes; of another variance: it does."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((6, 3))
    others = draw.standard_normal((5, 3))
    others = (others - others.mean(0)) / others.std(0) * x[1:].std(0) + x[1:].mean(0)
    same, wider = np.vstack([x[:1], others]), np.vstack([x[:1], x[1:].mean(0) + 2 * (x[1:] - x[1:].mean(0))])
    before = layer(x, offset, width)[0]
    slack = 1 + (abs(x).max() + abs(offset)) ** 2 / (width * x.std(0).min() ** 2)
    budget = 256 * EPS * slack**2 * abs(x).max()
    kept, changed = (layer(tokens, offset, width)[0] - before for tokens in (same, wider))
    evidence.expect("change with mean and variance kept", kept, equals=0, error=budget)
    evidence.expect("change with another variance", abs(changed).max(), at_least=budget)


few_parameters = Claim(
    paper=PAPER,
    slug="few-parameters",
    where="Abstract: 'relatively low number of parameters'",
    says="A layer of H heads of K Gaussians has 2 K H parameters, fewer than a dot-product layer of width D as soon as "
    "K H < 2 D^2.",
    formula=r"2 K H < 4 D^2 \iff K H < 2 D^2",
    gap="A count says nothing of what the parameters can do; only two of each head's 2 K have an effect of their own.",
)


@few_parameters.check("exact", controls={"dot-product attention": {"layer": "dot-product attention"}})
def test_a_trained_module_has_two_numbers_for_each_gaussian(evidence, *, layer="gate along rows"):
    """The README's example, 4 heads of 5 Gaussians, as a torch module: 40 numbers, attention has more from D = 5 on."""
    from empirical.operators.gaam import Gated, count, mixing

    module = Gated(-2, heads=4, components=5) if layer == "gate along rows" else mixing(layer, 8)
    evidence.expect("parameters", count(module), equals=parameters(4, 5), error=0)
    for width in range(5, 65):
        evidence.expect("share of a dot-product layer's", parameters(4, 5) / dot_product_parameters(width), less_than=1)


@few_parameters.check(
    "property",
    scope="how many of them count",
    controls={"masses of a sum of Gaussians": {"rank": lambda x, offset, width: mixture_rank(x, offset, width)}},
)
@no_shrinking
@given(parameters=st.lists(st.tuples(st.floats(-1, 1), st.floats(0.5, 3)), min_size=2, max_size=8), seed=seeds)
def test_two_parameters_of_a_head_have_effects_of_their_own(evidence, parameters, seed, *, rank=effective_parameters):
    """The derivative of the weights by all 2 K parameters has rank 2, as if K were 1."""
    offset, width = np.array(parameters).T
    evidence.expect("rank", rank(np.random.default_rng(seed).standard_normal(16), offset, width), equals=2, error=0)


def mixture_rank(x, offset, width):
    """Rank of the weights' derivative by the masses of a sum, by differences: one less than the number of Gaussians."""
    mass, step = np.ones(len(offset)), 1e-3
    offset = offset + np.arange(len(offset)) - len(offset) / 2
    base = mixture(x, mass, offset, width)
    slopes = [mixture(x, mass + step * unit, offset, width) - base for unit in np.eye(len(offset))]
    return int(np.linalg.matrix_rank(np.array(slopes) / step, tol=1e-6)) + 2


compatible = Claim(
    paper=PAPER,
    slug="compatible-with-dot-product",
    where="Abstract: 'compatibility with dot-product-based attention models'",
    says="Queries and keys gated by GAAM still give an attention; as the Gaussians widen it becomes the plain one.",
    formula=r"\lim_{\xi \to \infty} \operatorname{softmax}\bigl((G_\xi q)(G_\xi k)^\top\bigr)"
    r" = \operatorname{softmax}(q k^\top)",
    gap="That the pair trains better than attention alone is empirical and not checked.",
)


def gated_attention(q, k, offset, width):
    """Softmax attention of queries and keys gated in the paper's form."""
    return softmax(q * gaussian_adaptive_paper(q, offset, width), k * gaussian_adaptive_paper(k, offset, width))


def two_heads(q, k, offset, width):
    """The same with the released form, which weighs by shares: it does not become the plain one."""
    heads = np.full((2, 1), offset), np.full((2, 1), width)
    return softmax(q * multi_head(q, *heads), k * multi_head(k, *heads))


@compatible.check("property", controls={"the released form": {"attention": two_heads}})
@no_shrinking
@given(offset=st.floats(-2, 2), width=st.floats(1e2, 1e8), seed=seeds)
def test_wide_gaussians_leave_attention_as_it_is(evidence, offset, width, seed, *, attention=gated_attention):
    """1 - G <= z^2 / (2 xi); scores change by at most twice that share, weights by at most twice the scores' change."""
    draw = np.random.default_rng(seed)
    q, k = draw.standard_normal((2, 5, 8))
    found = attention(q, k, offset, width)
    evidence.expect("row sums", found.sum(axis=-1), equals=1, error=8 * EPS)
    loss = max(((x - x.mean(-1, keepdims=True) - offset) ** 2 / x.var(-1, keepdims=True)).max() for x in (q, k))
    shift = 2 * loss / (2 * width) * abs(q) @ abs(k).T / np.sqrt(8)
    budget = np.expm1(2 * shift.max()) + 64 * EPS
    evidence.expect("change of a weight over its bound", abs(found - softmax(q, k)).max() / budget, at_most=1)
