"""What Transformers can compute whose attention sees positions only (Back de Luca et al., ICML 2025).

What the paper says. In many parallel algorithms processors talk to partners that their positions alone determine. If
attention weights depend on positional encodings P only, a Transformer still simulates R rounds of massively parallel
computation (MPC) on N machines of s words with N + 1 nodes, 2 R ceil(log2 N) layers and 2 s heads (Theorem 5.1),
routing messages through a Benes network; so it keeps the power of standard Transformers at a logarithmic cost in depth.

Notation. A layer is Phi([A^1 X V^1, ..., X]) with A = softmax(P W_Q (P W_K)^T / sqrt(d_k)), P = I; `sharpness` is the
score of a head's target. Machines hold `words` numbers; a `Round` is a schedule of messages and a local ReLU network.

Scope. Real weights in float64, written by theory.operators.positional_programs. The cost in depth and data-dependent
messages are in test_positional_attention_depth.py, fixed wiring and scale in test_positional_attention_programs.py,
norms in test_positional_attention_norms.py, training in test_positional_attention_trained.py.
"""

from itertools import permutations

import numpy as np
from hypothesis import Phase, assume, settings
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import benes, wired_programs
from theory.operators.positional_attention import (
    attention_matrices,
    forward,
    leakage,
    leakage_bound,
    pointing,
    rounding_budget,
    standard_forward,
)
from theory.operators.positional_programs import Round, compiled, minimum_and_sum, run, schedule_bits, tokens

PAPER = "backdeluca2025positional"
EPS = np.finfo(float).eps
LARGEST = 1.0  # words stay in [-1, 1]: the local functions are minima and means

UNSHRUNK = (Phase.generate, Phase.target)  # a smaller protocol is quickly found by hand, and slowly by shrinking

seeds = st.integers(0, 2**32 - 1)

# -- Definition --------------------------------------------------------------------------------------------------------

definition = Claim(
    paper=PAPER,
    slug="weights-ignore-the-data",
    where="Abstract, Section 4",
    says="With positional attention the weights are a function of P alone, so that the mixing step is linear in the "
    "tokens; and every matrix with positive entries and rows of sum one is the weights of some head.",
    formula=r"A^{(\ell,h)} = \operatorname{softmax}\bigl(P W_Q (P W_K)^\top / \sqrt{d_k}\bigr)",
    gap="P = I; with encodings of lower rank fewer matrices can be reached.",
)


@definition.check("property", controls={"weights from the tokens": {"mix": standard_forward}})
@given(n=st.integers(2, 6), seed=seeds)
def test_mixing_is_linear_and_any_matrix_can_be_reached(
    evidence, n, seed, *, mix=lambda layers, x: forward(layers, np.eye(len(x)), x)
):
    """A random positive row-stochastic matrix is written as a head; its output is linear in the tokens."""
    draw = np.random.default_rng(seed)
    A = draw.dirichlet(np.ones(n), size=n)
    assume(A.min() > 1e-12)
    head = wired_programs.Layer(np.log(A)[None] * np.sqrt(n), np.eye(n)[None], np.eye(n)[None], lambda z: z[..., :n])
    reached = attention_matrices(head, np.eye(n))[0]
    evidence.expect("weights minus the wanted ones", reached - A, equals=0, error=64 * n * EPS)
    x, y = draw.standard_normal((2, n, n))
    both = mix([head], x + 2 * y) - mix([head], x) - 2 * mix([head], y)
    evidence.expect("departure from linearity", both, equals=0, error=64 * n * EPS * (abs(x).max() + 2 * abs(y).max()))


# -- Theorem 5.1 -------------------------------------------------------------------------------------------------------

simulation = Claim(
    paper=PAPER,
    slug="simulates-message-passing",
    where="Theorem 5.1",
    says="For all N >= 2, R, s and every local function that is a ReLU network, one positional Transformer with N + 1 "
    "nodes, 2 R ceil(log2 N) layers and 2 s heads runs every R-round protocol whose messages follow a schedule known "
    "beforehand; the settings of the switches are part of its input.",
    formula=r"n = N + 1, \quad L = 2 R \lceil \log_2 N \rceil, \quad H = 2 s",
    gap="The schedule does not depend on the data (see data-dependent-destinations). Phi's width grows with the switch "
    "bits, R s (4 ceil(log2 N) - 2 + s) per node, which the theorem does not count. ReLU local functions stand for "
    "Borel ones. For N = 1 the printed number of layers is 0.",
)


def dropped(layers):
    """The middle stage of the first round left out."""
    middle = next(i for i, layer in enumerate(layers) if len(layer.phi) > 2) // 2
    return layers[:middle] + layers[middle + 1 :]


def miswired(layers):
    """Every head of the first stage points one node further."""
    first = layers[0]
    moved = wired_programs.Layer(np.roll(first.queries, 1, axis=-1), first.keys, first.values, first.phi)
    return [moved, *layers[1:]]


BROKEN = {
    "heads with score 2 for their target": {"sharpness": 2.0},
    "one routing stage left out": {"network": dropped},
    "first stage wired to the next node": {"network": miswired},
}


def compare(evidence, name, rounds, layers, local, words, sharpness):
    """Run the compiled Transformer and the protocol, and expect them to agree."""
    nodes, held = words.shape[-2:]
    x = tokens(words, schedule_bits(rounds))
    out = forward(layers, np.eye(nodes + 1), x)[..., :nodes, :held]
    leak = leakage_bound(nodes + 1, max(sharpness, 40.0), [LARGEST] * len(layers), [1.0] * len(layers))
    budget = leak + rounding_budget(layers, x, 2 * LARGEST)
    evidence.expect(name, out - run(rounds, local, words), equals=0, error=budget)


@simulation.check("exact", scope="one round, one word, N <= 8, all permutations", controls=BROKEN)
def test_every_permutation_of_up_to_eight_machines_is_routed(
    evidence, rng, *, sharpness=40.0, network=lambda layers: layers
):
    """All 46 232 permutations of 2 to 8 machines, the 40 320 of N = 8 among them, in float64 to within 1e-12."""
    local = minimum_and_sum(1)
    routed = 0
    for nodes in range(8, 1, -1):
        sources = np.array(list(permutations(range(nodes))))
        words = np.broadcast_to(rng("words", nodes).uniform(-1, 1, (nodes, 1)), (len(sources), nodes, 1))
        rounds = [Round(sources[:, None], np.zeros((len(sources), nodes, 1), int))]
        layers = network(compiled(nodes, 1, 1, local, 2 * LARGEST, sharpness=sharpness))
        compare(evidence, f"error at N = {nodes}", rounds, layers, local, words, sharpness)
        routed += len(sources)
        depth = 2 * benes.address_bits(nodes)
        evidence.expect(f"layers at N = {nodes}", len(layers), equals=depth, error=0)
        evidence.expect(f"heads at N = {nodes}", max(layer.heads for layer in layers), equals=2, error=0)
    evidence.expect("permutations routed", routed, equals=46_232, error=0)


@simulation.check("exact", controls=BROKEN)
@settings(phases=UNSHRUNK)
@given(nodes=st.integers(2, 33), held=st.integers(1, 3), count=st.integers(1, 3), silence=st.floats(0, 1), seed=seeds)
def test_random_protocols_run_with_the_resources_of_the_theorem(
    evidence, nodes, held, count, silence, seed, *, sharpness=40.0, network=lambda layers: layers
):
    """Random schedules, also with idle machines; words in a new order, local minima and means; any N <= 33."""
    draw = np.random.default_rng(seed)
    rounds = []
    for _ in range(count):
        sources = np.stack([draw.permutation(nodes) for _ in range(held)])
        sources[draw.random(sources.shape) < silence] = -1
        rounds.append(Round(sources, np.stack([draw.permutation(held) for _ in range(nodes)])))
    local, words = minimum_and_sum(held), draw.uniform(-1, 1, (nodes, held))
    layers = network(compiled(nodes, held, count, local, 2 * LARGEST, sharpness=sharpness))
    compare(evidence, "error of any word", rounds, layers, local, words, sharpness)
    evidence.expect(
        "layers minus 2 R ceil(log2 N)", len(layers) - 2 * count * benes.address_bits(nodes), equals=0, error=0
    )
    evidence.expect("heads minus 2 s", max(layer.heads for layer in layers) - 2 * held, equals=0, error=0)
    evidence.expect("nodes minus N + 1", layers[0].queries.shape[-2] - nodes - 1, equals=0, error=0)


def first_free(messages, nodes, held):
    """Slots filled as messages come, without exchanging what was placed before."""
    sent, received, found = set(), set(), []
    for sender, receiver in messages:
        free = [slot for slot in range(held) if (sender, slot) not in sent and (receiver, slot) not in received]
        found.append(free[0] if free else 0)
        sent.add((sender, found[-1]))
        received.add((receiver, found[-1]))
    return found


@simulation.check(
    "property", scope="a permutation per word is no restriction", controls={"first free slot": {"slots": first_free}}
)
@given(nodes=st.integers(2, 12), held=st.integers(2, 4), seed=seeds)
def test_any_messages_split_into_one_permutation_per_word(evidence, nodes, held, seed, *, slots=benes.slots):
    """Koenig: if each machine sends and receives at most s messages, s slots suffice, none used twice at a machine."""
    draw = np.random.default_rng(seed)
    ends = np.repeat(np.arange(nodes), held)
    messages = list(zip(ends.tolist(), draw.permutation(ends).tolist(), strict=True))
    messages = [messages[i] for i in draw.permutation(len(messages))]
    placed = slots(messages, nodes, held)
    clashes = sum(
        len(messages) - len({(ends[side], slot) for ends, slot in zip(messages, placed, strict=True)})
        for side in (0, 1)
    )
    evidence.expect("messages that share a slot at a machine", clashes, equals=0, error=0)


arbitrary_accuracy = Claim(
    paper=PAPER,
    slug="accuracy-costs-sharpness",
    where="Theorem 5.1 (approximation to any accuracy)",
    says="Heads of finite sharpness beta make the simulation err by at most 2 L (n - 1) / (e^beta + n - 1) times the "
    "largest word, for local functions with Lipschitz constant 1: any accuracy is reached at a sharpness of order "
    "log(n L / eps).",
    formula=r"|\hat{x} - x| \le 2 L \, \frac{n - 1}{e^{\beta} + n - 1} \, \max |x|",
    gap="The bound is ours; the paper says only that the accuracy is arbitrary.",
)


def without_competitors(nodes, sharpness):
    """The weight lost as if only one other node competed."""
    return 1 / (np.exp(sharpness) + 1)


@arbitrary_accuracy.check("property", controls={"one competitor instead of n - 1": {"lost": without_competitors}})
@settings(phases=UNSHRUNK)
@given(nodes=st.integers(2, 16), sharpness=st.floats(0.5, 30), count=st.integers(1, 3), seed=seeds)
def test_leakage_is_bounded_and_the_bound_is_attained(evidence, nodes, sharpness, count, seed, *, lost=leakage):
    """Random one-word protocols stay below the bound; a head that reads 1 among words -1 attains that of a layer."""
    draw = np.random.default_rng(seed)
    rounds = [Round(draw.permutation(nodes)[None], np.zeros((nodes, 1), int)) for _ in range(count)]
    local, words = minimum_and_sum(1), draw.choice([-1.0, 1.0], (nodes, 1))
    layers = compiled(nodes, 1, count, local, 2 * LARGEST, sharpness=sharpness)
    x = tokens(words, schedule_bits(rounds))
    off = abs(forward(layers, np.eye(nodes + 1), x)[:nodes, :1] - run(rounds, local, words)).max()
    slack = rounding_budget(layers, x, 2 * LARGEST)
    bound = 2 * len(layers) * lost(nodes + 1, sharpness)
    evidence.expect("error above the bound", off - bound, at_most=slack)
    queries, keys = pointing(np.zeros((1, nodes), int), sharpness)
    read = queries @ keys.mT / np.sqrt(nodes)
    weights = np.exp(read[0, 0] - sharpness) / np.exp(read[0, 0] - sharpness).sum()
    values = np.where(np.arange(nodes) == 0, 1.0, -1.0)
    evidence.expect(
        "error of a head minus its bound",
        1 - weights @ values - 2 * lost(nodes, sharpness),
        equals=0,
        error=8 * nodes * EPS,
    )


depth = Claim(
    paper=PAPER,
    slug="routing-stages-are-needed",
    where="Section 5 (routing on a Benes network)",
    says="For N = 4 and 8, 2 log2 N - 1 stages of pairwise exchange along address bits are the fewest that route every "
    "permutation.",
    formula=r"2 \log_2 N - 1",
    gap="Exchanges along address bits only, in any order; other pairings and larger N are not counted.",
)


@depth.check("exact", controls={"a network that reaches all with one stage less": {"missing": 0}})
def test_no_order_of_fewer_stages_reaches_every_permutation(evidence, *, missing=1):
    """All orders of one stage less: at most 16 of 24 and 18 688 of 40 320 permutations; the network has all."""
    from itertools import product
    from math import factorial

    for nodes in (4, 8):
        bits, full = range(benes.address_bits(nodes)), benes.stages(nodes)
        evidence.expect(
            f"permutations reached at N = {nodes}", benes.reachable(nodes, full), equals=factorial(nodes), error=0
        )
        names = {
            tuple({b: i for i, b in enumerate(dict.fromkeys(o))}[b] for b in o): o
            for o in product(bits, repeat=len(full) - missing)
        }
        best = max(benes.reachable(nodes, order) for order in names)
        evidence.expect(f"reached with a stage less, N = {nodes}", best, less_than=factorial(nodes))
