"""When attention sink emerges: what key and value biases in attention are (Gu et al., 2024, sections 3.1 and 7.3).

What the paper says. The first token acts as biases: its keys and values do not depend on the sequence. A sink token,
key and value biases k*, v*, and key biases alone (v* = 0) move the sink from the first token to the bias (Table 4);
value biases alone change nothing.

Notation. s_tj = q_t.k_j / sqrt(d), s_t* = q_t.k* / sqrt(d), e = exp(s); o_t is the output without the bias; S_t is what
the tokens keep of a row. Our width of a head d is their d_h, our A* the weights with the bias's column in front.

Scope. Identities, checked on the layers of `empirical.layers` that our trained models consist of. What training makes
of the biases is in test_sink_emergence_trained*.py; learning rates in place of scales: test_sink_emergence_scaling.py.
"""

import numpy as np
import pytest

from reports.claim import Claim
from theory.operators.attention import scores
from theory.sinks.measures import importance
from theory.sinks.sink_emergence_identities import scaled_by_star, star_share, with_star

PAPER = "gu2024attentionsink"
EPS = np.finfo(float).eps
LENGTH, LAYERS = 32, 3


def rounding(layers=1):
    """Of outputs of size 1: sums of LENGTH weights, amplified fourfold by norms and matrices of each further layer."""
    return 16 * LENGTH * EPS * 4 ** (layers - 1)


def layer(outlet, rng):
    """An attention layer of two heads, float64, with random biases; and tokens (4, LENGTH, 16)."""
    torch = pytest.importorskip("torch", reason="needs torch for the layers")
    from empirical.layers import Attention, Style

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.seed("layer"))
        made = Attention(Style(16, 2, linear_bias=False, outlet=outlet)).double().requires_grad_(False)
        for name in ("star_key",) if outlet == "key bias" else ("star_key", "star_value"):
            if hasattr(made, name):
                getattr(made, name).copy_(torch.randn(2, 1, 8))
        x = torch.randn(4, LENGTH, 16, dtype=torch.float64)
    return made, x, torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


scaling = Claim(
    paper=PAPER,
    slug="key-value-bias-is-scaling",
    where="Section 7.3, Table 4 (exact reading, ours)",
    says="Attention with a key and a value bias is attention without them, scaled by what the bias leaves, plus the "
    "rest times v*; with v* = 0, a key bias is a scaling that depends on the query, and nothing else.",
    formula=r"\mathrm{softmax}\bigl([s_{t*}, s_t]\bigr) [v^*; V] = S_t \, o_t + (1 - S_t) \, v^*, \quad"
    r" S_t = \frac{1}{1 + e^{s_{t*} - \mathrm{LSE}_j s_{tj}}}",
    gap="An identity; whether training uses it is the subject of other claims.",
)


@scaling.check(
    "proof",
    controls={
        "the tokens keep all their weight": {
            "reading": lambda weighted, total, star, value: weighted / total + star / (total + star) * value
        },
        "a value bias": {"reading": lambda weighted, total, star, value: weighted / total + value},
    },
)
def test_the_two_forms_are_one_fraction(evidence, *, reading=scaled_by_star):
    """For any number of tokens: sum_j e_j v_j and sum_j e_j > 0 are symbols, and so are e* > 0 and v*."""
    import sympy

    total, star = sympy.symbols("Z e", positive=True)
    weighted, value = sympy.symbols("N v", real=True)
    forms = weighted, total, star, value
    evidence.true("difference is zero", sympy.simplify(with_star(*forms) - reading(*forms)) == 0)


@scaling.check(
    "exact",
    scope="the layers that are trained",
    controls={
        "without the largest score's rest": {"share": lambda s, star: 1 / (1 + np.exp(star - s.max(-1)))},
        "k* without 1 / sqrt(d)": {"share": lambda s, star: star_share(s, star * 8**0.5)},
    },
)
def test_layers_with_key_biases_scale_what_plain_attention_gives(evidence, rng, *, share=star_share):
    """Two heads, four random sequences under a causal mask: key bias, and key and value bias."""
    for outlet in ("key bias", "key-value bias"):
        made, x, mask = layer(outlet, rng)
        q, k = made.queries_and_keys(x)
        values = made.split(made.values(x))
        s = np.where(mask.numpy(), scores(q, k).numpy(), -np.inf)
        S = share(s, scores(q, made.star_key)[..., 0].numpy())[..., None]
        plain = (made.operator(q, k, mask=mask) @ values).numpy()
        mixed = made.mix(x, values, mask, None).numpy()
        expected = S * plain + (1 - S) * made.star_value.numpy()
        size = 1 + abs(values).max().item() + abs(made.star_value).max().item()
        evidence.expect("largest difference", mixed - expected, equals=0, error=size * rounding())


@scaling.check("exact", scope="k* = 0", controls={"k* of size 1": {"size": 1.0}})
def test_a_zero_key_bias_adds_one_to_the_denominator(evidence, rng, *, size=0.0):
    """With k* = 0 weights are exp(s_tj) / (1 + sum_j exp(s_tj)): softmax off by one."""
    made, x, mask = layer("key bias", rng)
    made.star_key *= size
    q, k = made.queries_and_keys(x)
    e = np.where(mask.numpy(), np.exp(scores(q, k).numpy()), 0.0)
    weights = made.weights(x, mask=mask).numpy()[..., 1:]
    evidence.expect("largest difference", weights - e / (1 + e.sum(-1, keepdims=True)), equals=0, error=rounding())


constant = Claim(
    paper=PAPER,
    slug="value-bias-is-constant",
    where="Section 7.3, Table 4, last row (exact reading, ours)",
    says="A value bias alone adds the same vector to what every token gets, whatever the sequence: a bias of W_O. It "
    "leaves attention weights as they are.",
    formula=r"\bigl( A V + \mathbf{1} v^* \bigr) W_O = A V W_O + \mathbf{1} \, (v^* W_O)",
    gap="Why it cannot take the part of a sink; that it does not, in training, is another claim.",
)


@constant.check(
    "exact",
    controls={
        "key and value bias": {"outlet": "key-value bias"},
        "context-aware bias": {"outlet": "context-aware bias"},
    },
)
def test_a_value_bias_moves_all_outputs_by_one_vector(evidence, rng, *, outlet="value bias"):
    """With v* and with v* = 0, on four sequences: the difference is v* W_O everywhere."""
    made, x, mask = layer(outlet, rng)
    with_bias = made(x, mask=mask)
    constant = made.output(made.star_value.transpose(0, 1).flatten(-2))[0]
    made.star_value *= 0
    difference = (with_bias - made(x, mask=mask) - constant).numpy()
    size = 1 + abs(with_bias).max().item()
    evidence.expect("largest distance from v* W_O", difference, equals=0, error=size * rounding())


fixed = Claim(
    paper=PAPER,
    slug="first-token-is-bias",
    where="Sections 3.1 and 7.3 (sink token)",
    says="A fixed first token acts, in every layer and head, as a key and a value bias that do not depend on the "
    "sequence: models with no or rotary positions compute the same with the token and with these biases.",
    formula=r"f_\theta(x_{\mathrm{fix}}, x_1, \dots, x_T)_{1..T}"
    r" = f_{\theta, (k^*_{l,h}, v^*_{l,h})}(x_1, \dots, x_T)",
    gap="Untrained models of three layers. Under rotary positions the other tokens must keep theirs (from 1 on, in the "
    "released code they count from 0); under ALiBi a token's score falls with the distance and a bias's does not.",
)


def compare(rng, position, same=True, **how):
    """Weights and outputs of a model after a first token, and of the one with biases in its place."""
    pytest.importorskip("torch", reason="needs torch for the models")
    from empirical.sinks import sink_emergence_positions as at

    model = at.untrained(position, rng.seed("model"), layers=LAYERS, context=LENGTH + 1).requires_grad_(False)
    tokens = at.random_tokens(4, LENGTH + 1, rng.seed("tokens")).clone()
    tokens[:, 0] = 7
    biased = at.as_biases(model, 7 if same else 8, **how).requires_grad_(False)
    whole, rest = at.layers_of(model, tokens), at.layers_of(biased, tokens[:, 1:])
    weights = [(a.weights.numpy(), b.weights.numpy()) for a, b in zip(whole, rest, strict=True)]
    return weights, (model(tokens)[:, 1:].numpy(), biased(tokens[:, 1:]).numpy())


def renumbered(rng, position):
    from empirical.layers import Attention

    return compare(rng, position, attention=Attention)


@fixed.check(
    "exact",
    controls={
        "biases of another token": {"pair": lambda rng, position: compare(rng, position, same=False)},
        "value biases with zero keys": {"pair": lambda rng, position: compare(rng, position, keys=0.0)},
        "rotary positions from 0": {"pair": renumbered},
        "ALiBi": {"positions": ("alibi",)},
    },
)
def test_models_with_the_token_and_with_its_biases_agree(evidence, rng, *, pair=compare, positions=("none", "rotary")):
    """Logits and attention weights; the biases come from running the token alone."""
    for position in positions:
        weights, (whole, rest) = pair(rng, position)
        error = rounding(LAYERS)
        evidence.expect("logits, largest difference", whole - rest, equals=0, error=error * abs(whole).max())
        for a, b in weights:
            evidence.expect("weights, largest difference", a[..., 1:, :] - b, equals=0, error=error)


def released(A):
    """alpha of the bias in the released code: its matrix has a row for the bias too, (1, 0, .. 0)."""
    first = np.zeros_like(A[..., :1, :])
    first[..., 0] = 1
    return importance(np.concatenate([first, A], axis=-2))


@fixed.check("exact", scope="the metric", controls={"without the bias's own row": {"alpha": importance}})
def test_the_released_metric_gives_the_bias_what_the_token_had(evidence, rng, *, alpha=released):
    """alpha_* of T tokens and a bias is alpha_1 of T + 1 tokens, both with the 1 / (T + 1) that A_11 = 1 gives."""
    weights, _ = compare(rng, "none")
    for a, b in weights:
        evidence.expect("alpha, largest difference", importance(a) - alpha(b), equals=0, error=rounding(LAYERS))
