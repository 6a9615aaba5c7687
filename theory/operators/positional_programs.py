"""Compilers to positional Transformers: protocols through a Benes network, and programs with fixed wiring.

A protocol (massively parallel computation, MPC): N machines hold s words; in each of R rounds every machine sends at
most s messages and receives at most s, then computes locally. Here destinations are a schedule known in advance, and
the switch settings that realise it are part of the input: the compiled weights are the same for all schedules.

Resources, exactly those of Theorem 5.1 of arXiv:2410.01686: N + 1 nodes (the last holds the null word 0), 2 s heads
(own and partner's word), 2 R ceil(log2 N) layers (2 ceil(log2 N) - 1 of routing and one of local computation per
round).

Every local function is a ReLU network. A word is gated by a bit b of the token: with M >= |v|,
b v = relu(v - M (1 - b)) - relu(-v - M (1 - b)), in floating point to half an ulp of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from theory.operators.benes import partners, route, stages
from theory.operators.positional_attention import Affine, Layer, Network, pointing, relu_network

# -- Small ReLU networks -----------------------------------------------------------------------------------------------


def gate_network(words: int, terms: Sequence[tuple[int, int, int]], total: int, largest: float) -> list[Affine]:
    """One hidden layer: x (total,) to y_w = sum over terms (w, v, b) of x_b x_v, x_b a bit, |x_v| <= largest."""
    first, offset = np.zeros((total, 2 * len(terms))), np.full(2 * len(terms), -largest)
    last = np.zeros((2 * len(terms), words))
    for column, (word, value, bit) in enumerate(terms):
        for sign, at in ((1.0, 2 * column), (-1.0, 2 * column + 1)):
            first[value, at] += sign
            first[bit, at] = largest
            last[at, word] = sign
    return [(first, offset), (last, np.zeros(words))]


def beside(upper: Network, lower: Network) -> list[Affine]:
    """Both networks on separate inputs, equally deep: x = (x_upper, x_lower) -> (y_upper, y_lower)."""
    return [(block_diagonal(a, c), np.concatenate([b, d])) for (a, b), (c, d) in zip(upper, lower, strict=True)]


def block_diagonal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[[a, 0], [0, b]]."""
    return np.block([[a, np.zeros((a.shape[0], b.shape[1]))], [np.zeros((b.shape[0], a.shape[1])), b]])


def unchanged(width: int, depth: int) -> list[Affine]:
    """Identity on non-negative numbers (bits), as `depth` affine maps."""
    return [(np.eye(width), np.zeros(width)) for _ in range(depth)]


def after(*networks: Network) -> list[Affine]:
    """The networks one after another, the last given first: neighbouring affine maps are multiplied out."""
    *outer, chain = [list(network) for network in networks]
    for following in reversed(outer):
        (a, b), (c, d) = chain[-1], following[0]
        chain = [*chain[:-1], (a @ c, b @ c + d), *following[1:]]
    return chain


def read(columns: Sequence[int], total: int) -> list[Affine]:
    """The linear map that picks these entries out of `total`."""
    matrix = np.zeros((total, len(columns)))
    matrix[list(columns), range(len(columns))] = 1
    return [(matrix, np.zeros(len(columns)))]


def minimum_and_sum(words: int) -> list[Affine]:
    """For tests, in one hidden layer: word w becomes min of words w and w + 1, the last the mean of all."""
    hidden, last = np.zeros((words, 3 * words)), np.zeros((3 * words, words))
    hidden[:, :words], hidden[:, words : 2 * words] = np.eye(words), -np.eye(words)  # x = relu(x) - relu(-x)
    for w in range(words - 1):
        hidden[w, 2 * words + w], hidden[w + 1, 2 * words + w] = 1, -1
        last[w, w], last[words + w, w], last[2 * words + w, w] = 1, -1, -1  # x - relu(x - x')
    last[:words, -1], last[words : 2 * words, -1] = 1 / words, -1 / words
    return [(hidden, np.zeros(3 * words)), (last, np.zeros(words))]


# -- Protocols and their simulation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """sources (s, N): the machine whose slot w machine i reads in slot w, or -1 for none; then words are put in order:
    order (N, s): word w of machine i is slot order[i, w], and `local` is applied."""

    sources: np.ndarray
    order: np.ndarray


def run(rounds: Sequence[Round], local: Network, words: np.ndarray) -> np.ndarray:
    """What the protocol computes, by indexing. words (..., N, s)."""
    for one in rounds:
        arrived = np.take_along_axis(words.mT, np.maximum(one.sources, 0), axis=-1)  # (..., s, N)
        received = np.where(one.sources >= 0, arrived, 0.0).mT
        words = relu_network(local, np.take_along_axis(received, one.order, axis=-1))
    return words


def completed(sources: np.ndarray) -> np.ndarray:
    """(..., N) permutations that agree with the sources where these are not -1."""
    whole = sources.copy()
    for row in whole.reshape(-1, whole.shape[-1]):
        if (row < 0).any():
            row[row < 0] = np.setdiff1d(np.arange(len(row)), row)
    return whole


def schedule_bits(rounds: Sequence[Round]) -> np.ndarray:
    """(..., N + 1, bits): per round (keep, take) of each stage and word, then the s x s selection; null node 0.

    Both bits are 0 in the last stage at a machine that receives nothing: its word becomes the null word. Arrays of the
    rounds may have leading axes: a batch of schedules.
    """
    rows = []
    for one in rounds:
        take = route(completed(one.sources))  # (..., s, S, N)
        keep = ~take
        keep[..., -1, :] &= one.sources >= 0
        take[..., -1, :] &= one.sources >= 0
        switches = np.stack([keep, take], axis=-1).swapaxes(-4, -2)  # (..., N, S, s, 2)
        selection = one.order[..., None] == np.arange(one.order.shape[-1])  # (..., N, w, slot)
        rows += [switches.reshape(*switches.shape[:-3], -1), selection.reshape(*selection.shape[:-2], -1)]
    bits = np.concatenate(rows, axis=-1).astype(float)
    return np.concatenate([bits, np.zeros_like(bits[..., :1, :])], axis=-2)


def tokens(words: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """(..., N + 1, s + bits) input: words (..., N, s) followed by the schedule, and the null node."""
    held = np.concatenate([words, np.zeros_like(words[..., :1, :])], axis=-2)
    lead = np.broadcast_shapes(held.shape[:-2], bits.shape[:-2])
    return np.concatenate([np.broadcast_to(one, (*lead, *one.shape[-2:])) for one in (held, bits)], axis=-1)


def compiled(
    nodes: int, words: int, rounds: int, local: Network, largest: float, *, sharpness: float = 40.0
) -> list[Layer]:
    """Weights that run every protocol of these sizes; `largest` bounds every word at any time."""
    per_round = len(stages(nodes)) * words * 2 + words * words
    bits = rounds * per_round
    own = np.arange(nodes + 1)
    layers = []
    for start in range(3 * words, 3 * words + bits, per_round):
        for stage, bit in enumerate(stages(nodes)):
            partner = np.append(partners(nodes, bit), nodes)
            switch = start + stage * words * 2
            terms = [(w, w + side * words, switch + 2 * w + side) for w in range(words) for side in (0, 1)]
            chosen = gate_network(words, terms, 3 * words + bits, largest)
            layers.append(exchange(own, partner, words, bits, chosen, sharpness))
        selection = start + len(stages(nodes)) * words * 2
        terms = [(w, slot, selection + w * words + slot) for w in range(words) for slot in range(words)]
        arranged = gate_network(words, terms, 3 * words + bits, largest)
        layers.append(exchange(own, own, words, bits, after(local, arranged), sharpness))
    return layers


def wired(rounds: Sequence[Round], words: int, local: Network, *, sharpness: float = 40.0) -> list[Layer]:
    """The protocol with its schedule in the weights: one layer per round, s heads, no bits. For order = identity."""
    layers = []
    for one in rounds:
        sources = np.where(one.sources < 0, one.sources.shape[-1], one.sources)
        targets = np.concatenate([sources, np.full((words, 1), sources.shape[-1])], axis=1)
        queries, keys = pointing(targets, sharpness)
        layers.append(Layer(queries, keys, np.eye(words)[:, :, None], after(local, read(range(words), 2 * words))))
    return layers


def exchange(own: np.ndarray, partner: np.ndarray, words: int, bits: int, phi: Network, sharpness: float) -> Layer:
    """A layer whose heads read each own word and each of the partner's; phi makes the new words, the bits pass."""
    queries, keys = pointing(np.stack([own] * words + [partner] * words), sharpness)
    values = np.zeros((2 * words, words + bits, 1))
    values[range(2 * words), [*range(words)] * 2, 0] = 1
    total = 3 * words + bits
    both = after(beside(phi, unchanged(bits, len(phi))), read([*range(total), *range(3 * words, total)], total))
    return Layer(queries, keys, values, both)
