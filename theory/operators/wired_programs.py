"""Parallel algorithms as weights of a positional Transformer: scans, sorting, self-routing, attention.

No program needs a sentinel or a bias: where a node has nobody to hear from, its heads point at the null node, which
holds 0, so that every program but `self_routing` and `one_wide_layer` is exactly positively homogeneous in its input.
Sources: Hillis and Steele 1986 (scans), Batcher 1968 (bitonic sort); the tasks are those of arXiv:2410.01686, section
7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from theory.operators.attention import softmax
from theory.operators.benes import address_bits
from theory.operators.positional_attention import Affine, Layer, forward, pointing

SHARP = 750.0
"""exp(-750) underflows: heads of this sharpness are one-hot in float64, with weights exactly 0 and 1."""


@dataclass(frozen=True)
class Program:
    """Layers on n + 1 nodes, and the number of words each input number is copied into; the answer is word `answer`."""

    layers: list[Layer]
    words: int = 1
    answer: int = 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (..., n) float64 -> (..., n)."""
        tokens = with_null(np.repeat(x[..., None], self.words, axis=-1))
        out: np.ndarray = forward(self.layers, np.eye(tokens.shape[-2]), tokens)[..., :-1, self.answer]
        return out


def with_null(tokens: np.ndarray) -> np.ndarray:
    """(..., n + 1, w): the tokens and a node of zeros."""
    return np.concatenate([tokens, np.zeros_like(tokens[..., :1, :])], axis=-2)


def heads(targets: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Queries, keys and values of heads that point at targets (n + 1,) and read words by their matrix (w, d_v)."""
    queries, keys = pointing(np.stack(list(targets)), SHARP)
    return {"queries": queries, "keys": keys, "values": np.stack(list(values))}


def maxima(groups: Sequence[Sequence[Sequence[float] | np.ndarray]], sign: float = 1.0) -> list[Affine]:
    """ReLU network x -> y_g = sign max over the rows r of group g of sign r.x, without biases, by knock-out.

    max(a, b) = relu(a) - relu(-a) + relu(b - a); as many hidden layers as the largest group needs rounds.
    """
    forms = [[sign * np.asarray(row, float) for row in group] for group in groups]
    network: list[Affine] = []
    while max(map(len, forms)) > 1:
        units: list[np.ndarray] = []
        following: list[list[dict[int, float]]] = []
        for group in forms:
            winners = []
            for first in range(0, len(group), 2):
                at = len(units)
                units += [group[first], -group[first]]
                winner = {at: 1.0, at + 1: -1.0}
                if first + 1 < len(group):
                    units.append(group[first + 1] - group[first])
                    winner[at + 2] = 1.0
                winners.append(winner)
            following.append(winners)
        network.append((np.stack(units, axis=1), np.zeros(len(units))))
        forms = [[np.array([w.get(u, 0.0) for u in range(len(units))]) for w in winners] for winners in following]
    last = sign * np.stack([group[0] for group in forms], axis=1)
    return [*network, (last, np.zeros(len(groups)))]


# -- Scans -------------------------------------------------------------------------------------------------------------


def behind(nodes: int, step: int) -> np.ndarray:
    """(n + 1,): i - step, or the null node n where there is none."""
    i = np.arange(nodes + 1)
    return np.where((i >= step) & (i < nodes), i - step, nodes)


Step = Callable[[int], int]


def running_sum(nodes: int, step: Step = lambda step: step) -> Program:
    """x_0 + ... + x_i at node i in ceil(log2 n) one-head layers (Hillis-Steele); step(1), step(2), ... wires."""
    phi = maxima([[[1, 1]]])
    wiring = [behind(nodes, step(1 << b)) for b in range(address_bits(nodes))]
    return Program([Layer(**heads([wire], [np.eye(1)]), phi=phi) for wire in wiring])


def running_minimum(nodes: int, step: Step = lambda step: step) -> Program:
    """min(x_0, ..., x_i) at node i; a node with nobody behind it reads itself."""
    phi = maxima([[[1, 0], [0, 1]]], sign=-1.0)
    layers = []
    for b in range(address_bits(nodes)):
        wire = behind(nodes, step(1 << b))
        layers.append(Layer(**heads([np.where(wire == nodes, np.arange(nodes + 1), wire)], [np.eye(1)]), phi=phi))
    return Program(layers)


def running_maximum_subarray(nodes: int, step: Step = lambda step: step) -> Program:
    """Largest sum of a non-empty run inside x_0 .. x_i: a scan of (sum, best prefix, best suffix, best), two heads.

    Head L reads the words behind, head O the own words; where nobody is behind both read zeros and nothing changes.
    """
    L_s, L_p, L_t, L_b, O_s, O_p, O_t, O_b, s, p, t, b = np.eye(12)
    groups = [
        [s + L_s],
        [p + L_s, p + L_p - O_p],
        [t, t + O_s + L_t - O_t],
        [b, b + L_b - O_b, b + L_t + O_p - O_b],
    ]
    phi = maxima(groups)
    layers = []
    for bit in range(address_bits(nodes)):
        wire = behind(nodes, step(1 << bit))
        own = np.where(wire == nodes, nodes, np.arange(nodes + 1))
        layers.append(Layer(**heads([wire, own], [np.eye(4)] * 2), phi=phi))
    return Program(layers, words=4, answer=3)


# -- Sorting -----------------------------------------------------------------------------------------------------------


def bitonic_stages(nodes: int, flip: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Partner (n,) and who keeps the smaller word (n,) in each stage; n = 2^k; `flip` turns the last stage."""
    k = address_bits(nodes)
    if nodes != 1 << k:
        raise ValueError(f"bitonic sort needs a power of two, got {nodes}")
    i = np.arange(nodes)
    network = []
    for size in range(1, k + 1):
        for bit in reversed(range(size)):
            smaller = (i >> bit & 1 == 0) == (i >> size & 1 == 0)
            network.append((i ^ 1 << bit, ~smaller if flip and size == k and bit == 0 else smaller))
    return network


def sort(nodes: int, flip: bool = False) -> Program:
    """Bitonic sort on one word and four heads. y = x - relu(own - partner) where the smaller stays, else x +
    relu(partner - own).

    Heads of a node that does not use them point at the null node.
    """
    hidden = np.array([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 1, 0, 0], [0, 0, 1, -1]])
    phi = [(hidden, np.zeros(4)), (np.array([[-1.0], [1], [1], [-1]]), np.zeros(1))]
    layers = []
    for partner, smaller in bitonic_stages(nodes, flip):
        own, other = np.arange(nodes), partner
        pointed = [
            np.where(smaller, own, nodes), np.where(smaller, other, nodes),
            np.where(smaller, nodes, own), np.where(smaller, nodes, other),
        ]  # fmt: skip
        layers.append(Layer(**heads([np.append(t, nodes) for t in pointed], [np.eye(1)] * 4), phi=phi))
    return Program(layers)


def self_routing(nodes: int, largest: float) -> list[Layer]:
    """Words (key, payload), keys a permutation of 0 .. n-1 in the data: node i ends with the payload of key i.

    Bitonic sort by key: k (k + 1) / 2 layers of three heads, no switch settings given. |payload| <= largest, n <=
    largest. Phi has two hidden layers of fixed width: integers d give [d >= 1] = relu(d) - relu(d - 1), which gates
    both words.
    """
    # Phi reads (key, payload) of the partner, d's two halves (key, 0), and the own (key, payload): 8 numbers.
    first = np.zeros((8, 10))
    first[2, :2], first[4, :2] = 1, -1  # d
    for word, (theirs, own) in enumerate([(0, 6), (1, 7)]):
        first[theirs, 2 + 2 * word], first[theirs, 3 + 2 * word] = 1, -1
        first[own, 6 + 2 * word], first[own, 7 + 2 * word] = 1, -1
    second, offset, last = np.zeros((10, 8)), np.zeros(8), np.zeros((8, 2))
    for word in range(2):
        for half, (at, bound, slope) in enumerate(
            [(2, -largest, largest), (6, 0.0, -largest)]
        ):  # taken if swapped, else kept
            for sign in (0, 1):
                unit = 4 * word + 2 * half + sign
                direction = 1 - 2 * sign
                second[at + 2 * word, unit], second[at + 2 * word + 1, unit] = direction, -direction
                second[0, unit], second[1, unit], offset[unit] = slope, -slope, bound
                last[unit, word] = direction
    phi = [(first, np.concatenate([[0.0, -1.0], np.zeros(8)])), (second, offset), (last, np.zeros(2))]
    key = np.array([[1.0, 0], [0, 0]])
    layers = []
    for partner, smaller in bitonic_stages(nodes):
        here = np.arange(nodes)
        pointed = [partner, np.where(smaller, here, partner), np.where(smaller, partner, here)]
        layers.append(Layer(**heads([np.append(t, nodes) for t in pointed], [np.eye(2), key, key]), phi=phi))
    return layers


# -- What unbounded local computation buys -----------------------------------------------------------------------------


def one_wide_layer(nodes: int, alphabet: int, answer: Callable[[np.ndarray], float], digits: bool = True) -> Layer:
    """One layer, one head: any function of all words relative to the node, words from 0 .. alphabet - 1.

    Node i gives weight alphabet^j / Z to node i + j (mod n), so that it reads all words as digits of one number; Phi
    interpolates the answer at the alphabet^n codes with as many hidden units. digits = False: uniform weights instead.
    Layers act on n nodes (no null node), P = I.
    """
    powers = float(alphabet) ** np.arange(nodes) if digits else np.ones(nodes)
    scores = np.zeros((nodes, nodes))
    for i in range(nodes):
        scores[i, (i + np.arange(nodes)) % nodes] = np.log(powers)
    codes = np.arange(alphabet**nodes)
    words = codes[:, None] // alphabet ** np.arange(nodes) % alphabet
    values = np.array([answer(row) for row in words])
    slopes = np.diff(values)
    bends = np.concatenate([slopes[:1], np.diff(slopes)])
    first = np.zeros((2, len(bends)))
    first[0] = powers.sum()
    phi = [(first, -codes[:-1].astype(float)), (bends[:, None], values[:1])]
    return Layer(np.sqrt(nodes) * scores[None], np.eye(nodes)[None], np.ones((1, 1, 1)), phi)


def squared(
    W_q: np.ndarray,
    W_k: np.ndarray,
    W_v: np.ndarray,
    phi: Callable[[np.ndarray], np.ndarray],
    nodes: int,
    rows: bool = True,
) -> list[Layer]:
    """One standard layer phi([softmax(x W_q (x W_k)^T / sqrt(d)) x W_v, x]) as two positional ones on n^2 nodes.

    Node (i, j) holds (x_i, anything). First layer: it fetches x_i from (i, i) and x_j from (j, j), and computes exp of
    the score and exp times value. Second layer: a head of equal weights averages these over (i, 0 .. n-1); phi divides.
    rows = False averages over columns instead.
    """
    d, d_v = W_q.shape[0], W_v.shape[1]
    i, j = np.divmod(np.arange(nodes**2), nodes)
    width = d + 1 + d_v

    def pair(x: np.ndarray) -> np.ndarray:
        own, other = x[..., :d], x[..., d : 2 * d]
        weight = np.exp(((own @ W_q) * (other @ W_k)).sum(axis=-1, keepdims=True) / np.sqrt(W_q.shape[1]))
        return np.concatenate([own, weight, weight * (other @ W_v)], axis=-1)

    def ratio(x: np.ndarray) -> np.ndarray:
        mean, own = x[..., :width], x[..., width : width + d]
        new = phi(np.concatenate([mean[..., d + 1 :] / mean[..., d : d + 1], own], axis=-1))
        return np.concatenate([new, np.zeros((*new.shape[:-1], width - d))], axis=-1)

    read = np.eye(width)[:, :d]
    queries, keys = pointing(np.stack([i * nodes + i, j * nodes + j]), SHARP)
    fetch = Layer(queries, keys, np.stack([read, read]), pair)
    group = i if rows else j
    together = SHARP * nodes * (group[:, None] == group)
    average = Layer(together[None], np.eye(nodes**2)[None], np.eye(width)[None], ratio)
    return [fetch, average]


def standard_layer(
    W_q: np.ndarray, W_k: np.ndarray, W_v: np.ndarray, phi: Callable[[np.ndarray], np.ndarray], x: np.ndarray
) -> np.ndarray:
    """phi([A x W_v, x]) with A = softmax(x W_q (x W_k)^T / sqrt(d_k)): the layer that `squared` simulates. x (n, d)."""
    return phi(np.concatenate([softmax(x @ W_q, x @ W_k) @ x @ W_v, x], axis=-1))
