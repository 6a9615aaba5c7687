"""What simulation costs in depth, and messages that go where the data say (Back de Luca et al., ICML 2025).

What the paper says. Simulating parallel computation and standard Transformers costs a factor log N in depth (abstract,
Remark 5.1); Theorem 5.1 is stated for massively parallel computation, whose messages may depend on the data.

Notation and models as in test_positional_attention.py. A layer of width w is one whose Phi has w hidden units.

Scope. Constructions in float64. Lower bounds are not attempted, except the count of what one layer can know, in
test_positional_attention_norms.py.
"""

from itertools import permutations

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators import benes, positional_programs, wired_programs
from theory.operators.positional_attention import forward, leakage_bound, rounding_budget
from theory.operators.positional_programs import Round, minimum_and_sum, run

PAPER = "backdeluca2025positional"
EPS = np.finfo(float).eps
LARGEST = 1.0  # words stay in [-1, 1]: the local functions are minima and means

seeds = st.integers(0, 2**32 - 1)


def dropped(layers):
    """One of the first layers left out."""
    return layers[1:]


standard = Claim(
    paper=PAPER,
    slug="simulates-standard-transformers",
    where="Abstract, Remark 5.1",
    says="A standard Transformer on N nodes with L layers is simulated by a positional one with O(N^2) nodes and O(L "
    "log N) layers; N^2 nodes, 2 L layers and two heads do.",
    formula=r"N^2 \text{ nodes}, \quad 2 L \le O(L \log N) \text{ layers}",
    gap="One standard head; Phi computes a product, an exponential and a quotient exactly instead of by ReLU. The "
    "paper goes through MPC and cannot use heads that average, which is where its logarithm comes from.",
)


@standard.check("property", controls={"averages over columns": {"rows": False}})
@given(n=st.integers(2, 6), d=st.integers(1, 4), depth=st.integers(1, 3), seed=seeds)
def test_two_positional_layers_on_all_pairs_are_one_standard_layer(evidence, n, d, depth, seed, *, rows=True):
    """Node (i, j) fetches tokens i and j and weighs; a head of equal weights sums over j; up to three layers."""
    draw = np.random.default_rng(seed)
    W_q, W_k, W_v = draw.standard_normal((3, d, d)) / np.sqrt(d)
    mix = draw.standard_normal((2 * d, d)) / np.sqrt(2 * d)
    phi = lambda z: np.maximum(z @ mix, 0)  # noqa: E731
    x = draw.uniform(-1, 1, (n, d))
    expected = x
    for _ in range(depth):
        expected = wired_programs.standard_layer(W_q, W_k, W_v, phi, expected)
    layers = wired_programs.squared(W_q, W_k, W_v, phi, n, rows) * depth
    start = np.concatenate([np.repeat(x, n, axis=0), np.zeros((n * n, 1 + d))], axis=1)
    found = forward(layers, np.eye(n * n), start)[:, :d].reshape(n, n, d)
    scale = (
        np.prod([1 + np.linalg.norm(W, 2) ** 2 for W in (W_q, W_k, W_v)]) ** depth
        * (1 + np.linalg.norm(mix, 2)) ** depth
    )
    evidence.expect("nodes (i, j) minus token i", found - expected[:, None], equals=0, error=64 * n * d * EPS * scale)
    evidence.expect("layers minus 2 L", len(layers) - 2 * depth, equals=0, error=0)


cost = Claim(
    paper=PAPER,
    slug="known-schedules-cost-no-depth",
    where="Abstract (a logarithmic cost in depth; our finding on when it is not paid)",
    says="A protocol of R rounds whose messages follow a schedule that is known when the weights are written runs in R "
    "layers of s heads: the factor 2 log2 N buys one set of weights for all schedules.",
    formula=r"L = R, \quad H = s",
    gap="As an upper bound the paper's cost stands, see simulates-message-passing. Whether one set of weights for all "
    "schedules needs it is not shown.",
)


@cost.check("exact", controls={"each word from the next machine": {"shift": 1}})
def test_a_known_schedule_needs_one_layer_a_round_and_half_the_heads(evidence, rng, *, shift=0):
    """The schedule is written into the heads: R layers, s heads, no switch bits, the same answers."""
    for nodes, held, count in ((3, 1, 1), (16, 2, 3), (33, 3, 2)):
        draw = rng("protocol", nodes)
        identity = np.broadcast_to(np.arange(held), (nodes, held))
        rounds = [Round(np.stack([draw.permutation(nodes) for _ in range(held)]), identity) for _ in range(count)]
        local, words = minimum_and_sum(held), draw.uniform(-1, 1, (nodes, held))
        wired = [Round((one.sources + shift) % nodes, identity) for one in rounds]
        layers = positional_programs.wired(wired, held, local)
        start = np.vstack([words, np.zeros((1, held))])
        found = forward(layers, np.eye(nodes + 1), start)[:nodes]
        leak = leakage_bound(nodes + 1, 40.0, [LARGEST] * count, [1.0] * count)
        error = leak + rounding_budget(layers, start, LARGEST)
        evidence.expect(f"error at N = {nodes}", found - run(rounds, local, words), equals=0, error=error)
        evidence.expect("layers minus R", len(layers) - count, equals=0, error=0)
        evidence.expect("heads minus s", max(layer.heads for layer in layers) - held, equals=0, error=0)


data_dependent = Claim(
    paper=PAPER,
    slug="data-dependent-destinations",
    where="Theorem 5.1 (MPC, whose messages may go where the data say)",
    says="The same resources suffice when the destinations of messages are computed from the data, with local "
    "functions whose size does not grow exponentially in N.",
    formula=r"L = 2 R \lceil \log_2 N \rceil",
    gap="The paper's routing takes the switch settings from an oracle; we could not read how its proof obtains them "
    "from data. Shown here: up to N = 8 without any oracle; and that Phi of exponential width makes the count of "
    "layers meaningless.",
)


@data_dependent.check(
    "exact",
    scope="N = 2, 4, 8: one message per machine, to a permutation in the data",
    controls={"one stage left out": {"network": dropped}},
)
def test_up_to_eight_machines_messages_route_themselves(evidence, rng, *, network=lambda layers: layers):
    """Bitonic sort by the destination: all 40 320 permutations at N = 8 in 6 layers and 3 heads, no settings given."""
    for nodes in (8, 4, 2):
        keys = np.array(list(permutations(range(nodes))), float)
        payload = rng("payload", nodes).uniform(-1, 1, nodes)
        start = wired_programs.with_null(np.stack([keys, np.broadcast_to(payload, keys.shape)], axis=-1))
        layers = network(wired_programs.self_routing(nodes, float(nodes)))
        found = forward(layers, np.eye(nodes + 1), start)[:, :-1, 1]
        expected = payload[np.argsort(keys, axis=-1)]
        budget = rounding_budget(layers, start, nodes)
        evidence.expect(f"error at N = {nodes}", found - expected, equals=0, error=budget)
        evidence.expect(f"layers at N = {nodes}", len(layers), at_most=2 * benes.address_bits(nodes))
        evidence.expect(f"heads at N = {nodes}", max(layer.heads for layer in layers), at_most=2 * 2)


@data_dependent.check(
    "exact", scope="words from a finite alphabet, exponential width", controls={"equal weights": {"digits": False}}
)
def test_one_wide_layer_looks_up_by_content(evidence, *, digits=True):
    """y_i = v[i + p_i] for all 256 and 729 inputs at N = 2, 3: one layer, one head, whatever the protocol.

    Weights B^j make a head's output a number whose digits are all words; Phi, as wide as there are inputs, looks it up.
    """
    for nodes, letters in ((2, 8), (3, 3)):
        alphabet = nodes * letters

        def answer(word, nodes=nodes):
            return float(word[word[0] % nodes] // nodes)

        layer = wired_programs.one_wide_layer(nodes, alphabet, answer, digits)
        words = np.stack(np.meshgrid(*[np.arange(alphabet)] * nodes, indexing="ij"), axis=-1).reshape(-1, nodes)
        found = forward([layer], np.eye(nodes), words[..., None].astype(float))[..., 0]
        expected = np.array([[answer(np.roll(row, -i)) for i in range(nodes)] for row in words])
        codes = alphabet**nodes
        # Sums of as many terms as there are codes, each at most the alphabet times the number of codes.
        evidence.expect(f"error at N = {nodes}", found - expected, equals=0, error=4 * codes * EPS * alphabet * codes)
        evidence.expect(f"hidden units at N = {nodes}", len(layer.phi[0][1]), equals=codes - 1, error=0)


@data_dependent.check("exact", controls={"words of other keys": {"offset": 1}})
def test_from_sixteen_machines_on_sorting_takes_more_layers_than_the_theorem_allows(evidence, rng, *, offset=0):
    """Self-routing still works at N = 16 and 64, in k (k + 1) / 2 layers where Theorem 5.1 has 2 k."""
    for nodes in (16, 64):
        draw = rng("keys", nodes)
        keys, payload = draw.permutation(nodes), draw.uniform(-1, 1, nodes)
        layers = wired_programs.self_routing(nodes, float(nodes))
        start = wired_programs.with_null(np.stack([keys.astype(float), payload], axis=-1))
        found = forward(layers, np.eye(nodes + 1), start)[:-1, 1]
        expected = payload[(np.argsort(keys) + offset) % nodes]
        evidence.expect(
            f"error at N = {nodes}", found - expected, equals=0, error=rounding_budget(layers, start, nodes)
        )
        evidence.note(f"N = {nodes}: {len(layers)} layers; Theorem 5.1 has {2 * benes.address_bits(nodes)} per round.")
    evidence.inconclusive(
        needs="a construction of width polynomial in N that routes data-dependent messages of N >= 16 machines in 2 "
        "ceil(log2 N) layers, or a lower bound; comparator networks cannot (the optimal depth for 16 inputs is 10)"
    )
