"""Which norms matter for positional attention, and what one layer cannot know (Back de Luca et al., ICML 2025).

What the paper says. Its generalisation bound has no factor that is exponential in the norms of queries and keys, which
the bound for standard Transformers has (Section 6); where communication depends on the data, positional Transformers
need more layers (Section 7).

Notation. ||X||_{2,inf} is the largest Euclidean norm of a token; b is the norm of the query-key matrix, their B_QK.

Scope. Lipschitz constants, on which generalisation bounds rest; Theorem 6.1 itself is in the file on training.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax
from theory.operators.positional_attention import (
    Layer,
    amplifier,
    attention_jacobian,
    attention_matrices,
    forward,
    look_up,
    lookup_error,
    lookup_floor,
    positional_jacobian_norm,
    rowwise_norm,
    standard_forward,
)

PAPER = "backdeluca2025positional"
EPS = np.finfo(float).eps

seeds = st.integers(0, 2**32 - 1)

# -- Norms -------------------------------------------------------------------------------------------------------------

lipschitz = Claim(
    paper=PAPER,
    slug="no-dependence-on-query-key-norms",
    where="Abstract, Section 6 (mechanism of Theorem 6.1)",
    says="The mixing step of a positional head has Lipschitz constant at most ||W_V||_2 in ||.||_{2,inf}, and at most "
    "sqrt(n) ||W_V||_2 in the Frobenius norm, whatever the norms of queries and keys; both are attained.",
    formula=r"\|A X W_V\|_{2,\infty} \le \|X\|_{2,\infty} \|W_V\|_2",
    gap="The bound of Theorem 6.1 itself is uniform-convergence.",
)


def largest_average(n):
    """All weight on one token: the equality case of the Frobenius bound."""
    return np.tile(np.eye(n)[0], (n, 1))


def standard_norm(x, sharpness, W_v):
    """||J||_2 of standard attention with query-key matrix sharpness I and values W_v."""
    return float(
        np.linalg.norm(np.kron(np.eye(len(x)), W_v.T) @ attention_jacobian(x, sharpness * np.eye(x.shape[1])), 2)
    )


def fixed_norm(x, sharpness, W_v):
    """||J||_2 of a positional head whose scores have that size."""
    n = len(x)
    scores = np.random.default_rng(n).uniform(-sharpness, sharpness, (n, n)) * np.sqrt(n)
    head = Layer(scores[None], np.eye(n)[None], W_v[None], lambda z: z)
    return positional_jacobian_norm(attention_matrices(head, np.eye(n))[0], W_v)


@lipschitz.check("property", controls={"standard attention": {"norm": standard_norm}})
@given(n=st.integers(2, 8), d=st.integers(1, 4), sharpness=st.floats(0, 100), seed=seeds)
def test_the_slope_of_a_positional_head_is_bounded_at_any_sharpness(
    evidence, n, d, sharpness, seed, *, norm=fixed_norm
):
    """Tokens of norm at most 1; random heads; equality for W_V a multiple of the identity and one-hot rows."""
    draw = np.random.default_rng(seed)
    x, W_v = draw.standard_normal((n, d)), draw.standard_normal((d, d))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1)
    size = np.linalg.norm(W_v, 2)
    evidence.expect(
        "||J||_2 over sqrt(n) ||W_V||_2", norm(x, sharpness, W_v) / (np.sqrt(n) * size), at_most=1 + 64 * n * d * EPS
    )
    A = draw.dirichlet(np.full(n, 0.3), size=n)
    evidence.expect(
        "||A X W_V|| over ||X|| ||W_V||",
        rowwise_norm(A @ x @ W_v) / (rowwise_norm(x) * size),
        at_most=1 + 64 * n * d * EPS,
    )
    attained = positional_jacobian_norm(largest_average(n), np.eye(d))
    evidence.expect("attained: ||J||_2 over sqrt(n)", attained / np.sqrt(n), equals=1, error=64 * n * EPS)
    evidence.expect(
        "attained: row norm", rowwise_norm(np.eye(n) @ x @ np.eye(d)) / rowwise_norm(x), equals=1, error=4 * EPS
    )


amplified = Claim(
    paper=PAPER,
    slug="standard-slope-is-exponential",
    where="Section 6 (comparison with standard Transformers, factor B_QK^{O(L)})",
    says="For standard attention the factor cannot be avoided: in the same architecture L layers of one head with "
    "query-key norm b have slope ((1 + 2 b) / 3)^L at inputs in [-1, 1].",
    formula=r"\frac{\mathrm{d} f}{\mathrm{d} x}\Big|_{x=0} = \Bigl(\frac{1 + 2 b}{3}\Bigr)^{L}",
    gap="A lower bound on Lipschitz constants, on which known bounds rest; not on the sample complexity itself.",
)


@amplified.check("proof", controls={"weights from positions": {"score": lambda b, q, key: 0 * q}})
def test_the_slope_of_stacked_standard_layers_is_a_power(evidence, *, score=lambda b, q, key: b * q * key):
    """One token asks with its value q, tokens 1 and -1 stay: q -> softmax(b q (q, 1, -1)).(q, 1, -1) has fixed point 0.

    Its derivative there is found symbolically; by the chain rule L layers have its L-th power.
    """
    import sympy

    b, q = sympy.symbols("b q", positive=True)
    keys = (q, sympy.Integer(1), sympy.Integer(-1))
    weights = [sympy.exp(score(b, q, key)) for key in keys]
    layer = sum(w * key for w, key in zip(weights, keys, strict=True)) / sum(weights)
    evidence.expect("value at 0", layer.subs(q, 0), equals=0, error=0)
    slope = sympy.simplify(sympy.diff(layer, q).subs(q, 0))
    evidence.expect(
        "coefficient of b in the slope", sympy.Poly(slope, b).coeff_monomial(b), equals=sympy.Rational(2, 3), error=0
    )
    evidence.expect("slope without b", sympy.Poly(slope, b).coeff_monomial(1), equals=sympy.Rational(1, 3), error=0)


def flat(layers, x):
    """Weights from positions instead: uniform ones."""
    return forward(
        [Layer(np.zeros((1, 3, 1)), np.zeros((1, 3, 1)), layer.values, layer.phi) for layer in layers], np.eye(3), x
    )


@amplified.check(
    "exact",
    scope="b = 1/2 to 8, L = 1 to 4, by central differences",
    controls={"weights from positions": {"network": flat}},
)
def test_stacked_layers_have_that_slope_in_numbers(evidence, *, network=standard_forward):
    """The layers themselves, in float64; the picture compares them with a positional network of any sharpness."""
    from matplotlib.figure import Figure

    step = 1e-5
    grid = [0.5, 1.0, 2.0, 4.0, 8.0]
    figure = Figure(figsize=(5, 3.2))
    axes = figure.subplots()
    for depth in (1, 2, 3, 4):
        slopes = []
        for b in grid:
            ends = [
                network([amplifier(b)] * depth, np.array([[v, 0, 1], [1, 1, 1], [-1, 1, 1]]))[0, 0]
                for v in (step, -step)
            ]
            slopes.append((ends[0] - ends[1]) / (2 * step))
            exact = ((1 + 2 * b) / 3) ** depth
            # Truncation: a third derivative of at most (3 + b)^3 per layer, amplified by the layers around it.
            error = step**2 * depth * (3 + b) ** 3 * (1 + exact) ** 3 + EPS / step
            evidence.expect(f"slope over its formula, L = {depth}", slopes[-1] / exact, equals=1, error=error / exact)
        axes.plot(grid, slopes, "o-", label=f"standard, {depth} layer{'s' * (depth > 1)}")
    axes.axhline(1, color="k", linestyle="--", label="positional, any depth and norm")
    axes.set(xscale="log", yscale="log", xlabel="query-key norm b", ylabel="slope at 0")
    axes.legend(fontsize=7)
    evidence.figure(
        "Slope of stacked layers",
        figure,
        "Standard attention amplifies by ((1 + 2 b) / 3)^L; positional attention averages.",
    )


# -- What a layer cannot know ------------------------------------------------------------------------------------------

lookup = Claim(
    paper=PAPER,
    slug="one-layer-cannot-look-up",
    where="Section 7, k-hop induction heads (mechanism)",
    says="For y_i = v[p_i] with v ~ N(0, I_n) and uniform p_i, every positional layer with H heads has a mean "
    "squared error of at least "
    "(n - 1 - H) / n, whatever its Phi; one standard layer with one head has none in the limit of sharp heads.",
    formula=r"\mathbb{E}(\hat y - y)^2 \ge \frac{n - 1 - H}{n}",
    gap="One layer. The count of linear functionals needs real-valued words; on a finite alphabet see "
    "data-dependent-destinations.",
)


def by_content(n, sharpness):
    """Error of one standard head at one draw: token i carries v_i and one-hot p_i and i; it asks for position p_i."""
    draw = np.random.default_rng(n)
    v, p = draw.standard_normal(n), draw.integers(n, size=n)
    weights = softmax(np.eye(n)[p] * sharpness, np.eye(n), scale=1.0)
    return float(((weights @ v - v[p]) ** 2).mean())


@lookup.check("exact", controls={"heads of another kind: one per token": {"extra": lambda n, heads: n - 1 - heads}})
@given(n=st.integers(3, 12), heads=st.integers(1, 4), seed=seeds)
def test_the_least_error_of_one_layer_is_a_count_of_tokens(evidence, n, heads, seed, *, extra=lambda n, heads: 0):
    """Random heads: the best predictor's error, (n - rank) / n, equals the bound; standard attention reaches 0."""
    if heads > n - 2:
        heads = n - 2
    A = np.random.default_rng(seed).dirichlet(np.ones(n), size=(heads + extra(n, heads), n))
    evidence.expect("least error", lookup_error(A), equals=lookup_floor(n, heads), error=4 * EPS)
    evidence.expect("standard head of sharpness 750", by_content(n, 750.0), at_most=4 * EPS)


deeper = Claim(
    paper=PAPER,
    slug="more-layers-look-up",
    where="Section 7, Figures 3 and 5 (with communication that depends on the data more layers are needed)",
    says="More layers make up for weights that ignore the data: ceil((n - 1) / H) positional layers of H heads compute "
    "y_i = v[p_i] exactly for every p in the data, where fewer than n - 1 heads in one layer cannot.",
    formula=r"L = \Bigl\lceil \frac{n - 1}{H} \Bigr\rceil",
    gap="A construction, whose nodes carry their own number as a word; that fewer layers fail is shown for one layer "
    "only, by one-layer-cannot-look-up. Trained models did not find it: see data-dependent-tasks-favour-standard.",
)


@deeper.check("exact", controls={"the last layer left out": {"network": lambda layers: layers[:-1]}})
@given(n=st.integers(2, 12), heads=st.integers(1, 11), seed=seeds)
def test_every_pointer_is_followed_in_as_many_layers_as_heads_need_to_see_all_nodes(
    evidence, n, heads, seed, *, network=lambda layers: layers
):
    """Random pointers; and each node pointing at the one that is seen last, where no layer can be spared."""
    draw = np.random.default_rng(seed)
    v, i = draw.standard_normal(n), np.arange(n)
    layers = network(look_up(n, heads, abs(v).max()))
    for p in (draw.integers(n, size=n), (i - 1) % n):
        x = np.stack([v, p, i, np.zeros(n)], axis=-1)
        evidence.expect("error", forward(layers, np.eye(n), x)[:, -1] - v[p], equals=0, error=0)
    evidence.expect("layers minus ceil((n - 1) / H)", len(layers) + (1 - n) // heads, equals=0, error=0)
    evidence.expect("heads of a layer", max(layer.heads for layer in layers), at_most=heads)
