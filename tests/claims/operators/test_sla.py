"""Sparse-linear attention: what it computes (Zhang et al., 2025).

What the paper says. Blocks of keys are critical, marginal or negligible for a block of queries; critical ones get exact
softmax, marginal ones linear attention, negligible ones nothing, and O = O^s + Proj(O^l) (section 4). One fused kernel
computes both branches and their gradients (algorithms 1 and 2).

Notation. `query_block` and `key_block` are b_q and b_kv, `blocks` is M_c, `high` and `low` are k_h and k_l. We write P
for the weights of full attention and alpha_i for what row i gives to its critical keys.

Scope. The operator on random inputs with random maps. Whether pooled scores find the critical blocks, the rank of what
is left, and video models are not here; what it costs is in test_sla_cost.py, speed in test_sla_speed.py.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.attention import softmax
from theory.operators.sla import Form, algorithm, branches, gradients, online, spread

PAPER = "zhang2025sla"
EPS = np.finfo(np.float64).eps


def drawn(seed, linear="marginal", features="softmax"):
    """q, k, v, map and form: up to 40 queries and keys, d up to 6, blocks of up to 9; any map, with empty rows too."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 40, size=2)
    d, b_q, b_kv = rng.integers(1, 7), *rng.integers(1, 10, size=2)
    q, k, v = (rng.standard_normal((length, d)) * rng.choice([0.1, 1, 5]) for length in (n, m, m))
    blocks = rng.choice([-1, 0, 1], size=(-(-n // b_q), -(-m // b_kv)), p=rng.dirichlet([1, 1, 1])).astype(np.int8)
    return q, k, v, blocks, Form(int(b_q), int(b_kv), linear, features)


def rounding(q, k, v):
    """Twice a bound of |computed - true|: scores of d terms, weights of at most m, features of d, values averaged."""
    m, d = k.shape
    largest = max(abs(q).max(), abs(k).max())
    scores = (abs(q) @ abs(k).T).max() / np.sqrt(d)
    return 2 * EPS * ((d + 2) * (scores + 1) + 2 * largest + m + 8) * abs(v).max()


def without_rescaling(state, s, v):
    """An online softmax that forgets to shrink what it has when the maximum rises."""
    top, norm, out = state
    higher, more, added = online((top, 0 * norm, 0 * out), s, v)
    return higher, norm + more, out + added


seeds = st.integers(0, 2**32 - 1)

block_algorithm = Claim(
    paper=PAPER,
    slug="one-pass-over-blocks-computes-both-branches",
    where="Section 4, algorithm 1",
    says="Walking through the blocks of a row once, with an online softmax over critical ones and a sum of states over "
    "marginal ones, gives the softmax over critical keys and the linear attention over marginal keys.",
    formula=r"O^s_i = \mathrm{softmax}_{j : M_{ij} = 1}(q_i k_j^\top / \sqrt d)\, v_j, \quad "
    r"O^l_i = \frac{\phi(Q_i) \sum_{j : M_{ij} = 0} \phi(K_j)^\top V_j}"
    r"{\phi(Q_i) \sum_{j : M_{ij} = 0} \phi(K_j)^\top 1}",
    gap="float64 on a CPU, one head; the kernels have their own gate.",
)


@block_algorithm.check(
    "property",
    controls={
        "no rescaling": {"compute": lambda *given: algorithm(*given, step=without_rescaling)},
        "list off by one": {"compute": lambda q, k, v, M, form: algorithm(q, k, v, np.roll(M, 1, -1), form)},
        "negligible blocks too": {"compute": lambda *given: algorithm(*given[:-1], replace(given[-1], linear="rest"))},
    },
)
@given(seed=seeds, features=st.sampled_from(["softmax", "elu"]))
def test_the_algorithm_is_the_definition(evidence, seed, features, *, compute=algorithm):
    """Up to 40 queries and keys, any blocks and any map: both outputs within rounding of whole masked matrices."""
    q, k, v, blocks, form = drawn(seed, features=features)
    expected = branches(q, k, v, blocks, form)
    for name, found, true in zip(("O^s", "O^l"), compute(q, k, v, blocks, form), expected, strict=True):
        evidence.expect(
            f"difference of {name} over the rounding bound", abs(found - true) / rounding(q, k, v), at_most=1
        )


@block_algorithm.check("exact", scope="limit", controls={"last block left out": {"kind": [1, 1, 1, -1]}})
def test_with_every_block_critical_it_is_full_attention(evidence, *, kind=(1, 1, 1, 1)):
    """16 queries and keys, blocks of 4: O^s is full attention, O^l is 0 and not 0 / 0."""
    q, k, v = np.random.default_rng(1).standard_normal((3, 16, 4))
    sparse, linear = algorithm(q, k, v, np.tile(np.array(kind, np.int8), (4, 1)), Form(4, 4))
    evidence.expect("difference from full attention", sparse - softmax(q, k) @ v, equals=0, error=rounding(q, k, v))
    evidence.expect("O^l", linear, equals=0, error=0)


backward = Claim(
    paper=PAPER,
    slug="backward-formulas",
    where="Section 4, algorithm 2",
    says="The gradients of q, k and v are the printed sums over critical and marginal blocks, the map being constant.",
    formula=r"dS = P \circ (dO^s V^\top - D^s),\quad d\phi(Q_i) = \frac{dO^l_i H_i^\top - D^l_i Z_i^\top}"
    r"{\phi(Q_i) Z_i},\quad d\phi(K_j) = V_j dH_j^\top + 1\, dZ_j^\top",
    gap="Against automatic differentiation of the same definition in float64; with ReLU features, off their kinks.",
)


@backward.check(
    "property",
    controls={
        "without dZ": {"formulas": lambda *given: gradients(*given, through_norm=False)},
        "negligible blocks too": {"formulas": lambda *given: gradients(*given[:-1], replace(given[-1], linear="rest"))},
        "without 1 / sqrt(d)": {"formulas": lambda *given: gradients(*given[:-1], replace(given[-1], scale=1.0))},
    },
)
@given(seed=seeds, features=st.sampled_from(["softmax", "elu", "relu"]))
def test_the_formulas_are_what_automatic_differentiation_gives(evidence, seed, features, *, formulas=gradients):
    """Up to 40 queries and keys, any map: at least half of the digits agree, against the largest gradient."""
    import torch

    q, k, v, blocks, form = drawn(seed, features=features)
    dO = np.random.default_rng(seed).standard_normal((2, *q.shape))
    leaves = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    outputs = branches(*leaves, torch.from_numpy(blocks), form)
    true = torch.autograd.grad(outputs, leaves, tuple(torch.from_numpy(dO)))
    largest = max(1e-300, *(float(x.abs().max()) for x in true))
    for name, found, expected in zip("QKV", formulas(q, k, v, blocks, *dO, form), true, strict=True):
        off = abs(found - expected.numpy()) / largest
        evidence.expect(f"relative difference of d{name}", off, at_most=np.sqrt(EPS))


# -- what the sparse branch computes -----------------------------------------------------------------------------------

critical = Claim(
    paper=PAPER,
    slug="critical-blocks-get-their-attention",
    where="Abstract and section 3 (attention weights are split in two parts), as a reader takes it",
    says="The sparse branch computes what full attention gives to critical blocks, O^s = (P o M) V.",
    formula=r"O^s = (P \circ M)\, V",
    gap="Nothing about how near to full attention the sum with a trained projection comes.",
    repair="O^s is that over the share of the row that is critical: O^s_i = (P o M)_i V / alpha_i, "
    "alpha_i = sum of P_ij over critical j. The linear branch must make up for 1 / alpha too.",
)


def share_of(q, k, v, blocks, form):
    """(P o M) V and alpha."""
    kept = softmax(q, k) * (spread(blocks, len(q), len(k), form) == 1)
    return kept @ v, kept.sum(-1, keepdims=True)


@critical.refutation("exact", controls={"both keys critical": {"blocks": [[1, 1]]}})
def test_of_two_equal_keys_one_critical_gets_everything(evidence, *, blocks=((1, 0),)):
    """One query, two equal keys with values 1 and 0, the first one critical: 1/2 in full attention, O^s = 1."""
    q, k, v = np.ones((1, 1)), np.ones((2, 1)), np.array([[1.0], [0.0]])
    kinds, form = np.array(blocks, np.int8), Form(1, 1)
    sparse, (kept, _) = branches(q, k, v, kinds, form)[0], share_of(q, k, v, kinds, form)
    evidence.expect("O^s - (P o M) V", sparse - kept, equals=Fraction(1, 2), error=0)
    evidence.counterexample("two equal keys, one critical", sparse=float(sparse[0, 0]), full=float(kept[0, 0]))


@critical.check(
    "property",
    controls={"without alpha": {"renormalised": lambda kept, alpha: kept}},
)
@given(seed=seeds)
def test_it_is_that_over_the_critical_share(evidence, seed, *, renormalised=lambda kept, alpha: kept / alpha):
    """Up to 40 queries and keys, any map: rows with a critical share of at least 2^-20, within rounding over alpha."""
    q, k, v, blocks, form = drawn(seed)
    (kept, alpha), sparse = share_of(q, k, v, blocks, form), branches(q, k, v, blocks, form)[0]
    rows = alpha[:, 0] >= 2.0**-20
    if not rows.any():
        return
    off = abs(sparse - renormalised(kept, np.where(alpha > 0, alpha, 1)))[rows] * alpha[rows]
    evidence.expect("difference over the rounding bound", off / rounding(q, k, v), at_most=1)
