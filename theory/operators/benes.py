"""Routing on a Benes network of any size: fixed exchange stages, and the switch settings that realise a permutation.

A network on N nodes has 2 ceil(log2 N) - 1 stages. In each stage node i may exchange its word with node i xor 2^b,
where b runs 0, 1, ..., k-1, ..., 1, 0 (k = ceil(log2 N)); partners >= N do not exist, such nodes keep their words. For
N = 2^k this is Benes' network up to a renaming of the nodes; for other N it is the one of Chang and Melhem.

    sources   (..., N) int    node i is to receive the word of node sources[i]
    switches  (..., S, N) bool  node i takes its partner's word in that stage
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np


def address_bits(nodes: int) -> int:
    """ceil(log2 N), exactly."""
    if nodes < 1:
        raise ValueError(f"a network has at least one node, got {nodes}")
    return (nodes - 1).bit_length()


def stages(nodes: int) -> list[int]:
    """The bit exchanged in each stage, 2 ceil(log2 N) - 1 of them; none for a single node."""
    k = address_bits(nodes)
    return [*range(k), *reversed(range(k - 1))]


def partners(nodes: int, bit: int) -> np.ndarray:
    """(N,) int: i xor 2^bit where that node exists, else i."""
    across = np.arange(nodes) ^ (1 << bit)
    return np.where(across < nodes, across, np.arange(nodes))


def route(sources: np.ndarray) -> np.ndarray:
    """Switch settings (..., 2k - 1, N) that bring to each node i the word of node sources[i], for a batch at once.

    The looping algorithm in its parallel form: two words that meet in a switch, on the way in or on the way out, must
    enter different halves. Along "my input partner's output partner" a word's loop closes; all words of a loop choose
    alike. The largest node of a loop keeps its side, so that nodes which pad N to a power of two never take part.
    """
    nodes, k = sources.shape[-1], address_bits(sources.shape[-1])
    size = 1 << k
    here = np.broadcast_to(np.arange(size), (*sources.shape[:-1], size)).copy()  # node of each word, named by its start
    there = here.copy()  # node it must still come out of, before the stages already settled from the far end
    np.put_along_axis(there[..., :nodes], sources, np.broadcast_to(np.arange(nodes), sources.shape), axis=-1)
    entering, leaving = [], []
    for bit in range(k - 1):
        side = halves(here, there, 1 << bit)
        entering.append(crossed(here, side, bit))
        leaving.append(crossed(there, side, bit))
        here, there = moved(here, side, bit), moved(there, side, bit)
    middle = [crossed(here, there >> (k - 1) & 1, k - 1)] if k else []
    settings = [*entering, *middle, *reversed(leaving)]
    if not settings:
        return np.zeros((*sources.shape[:-1], 0, nodes), bool)
    return np.stack(settings, axis=-2)[..., :nodes]


def halves(here: np.ndarray, there: np.ndarray, step: int) -> np.ndarray:
    """(..., N) 0 or 1: the half each word passes through, by pointer doubling around its loop."""
    word_at_input, word_at_output = np.argsort(here, axis=-1), np.argsort(there, axis=-1)
    follow = np.take_along_axis(
        word_at_output, np.take_along_axis(there, np.take_along_axis(word_at_input, here ^ step, -1), -1) ^ step, -1
    )
    largest = here.copy()
    for _ in range(here.shape[-1].bit_length()):
        largest = np.maximum(largest, np.take_along_axis(largest, follow, -1))
        follow = np.take_along_axis(follow, follow, -1)
    rivals = np.take_along_axis(largest, np.take_along_axis(word_at_input, here ^ step, -1), -1)
    own_side, other_side = (largest & step) != 0, (rivals & step) == 0
    side: np.ndarray = np.where(largest > rivals, own_side, other_side).astype(int)
    return side


def moved(node: np.ndarray, side: np.ndarray, bit: int) -> np.ndarray:
    """The node with its address bit replaced by the side."""
    return node & ~(1 << bit) | side << bit


def crossed(node: np.ndarray, side: np.ndarray, bit: int) -> np.ndarray:
    """(..., N) bool, by node: whether the word there changes sides."""
    out = np.empty(node.shape, bool)
    np.put_along_axis(out, node, (node >> bit & 1) != side, axis=-1)
    return out


def permuted(words: np.ndarray, switches: np.ndarray, order: Sequence[int] | None = None) -> np.ndarray:
    """Words (..., N) after all stages; `order` are the bits exchanged, `stages(N)` unless given."""
    nodes = words.shape[-1]
    for stage, bit in enumerate(stages(nodes) if order is None else order):
        words = np.where(switches[..., stage, :], words[..., partners(nodes, bit)], words)
    return words


def reachable(nodes: int, order: Sequence[int]) -> int:
    """Number of permutations that some switch setting of these exchange stages realises; N a power of two <= 8."""
    pairs = [[i for i in range(nodes) if not i >> bit & 1] for bit in order]
    found = {tuple(range(nodes))}
    for bit, firsts in zip(order, pairs, strict=True):
        arrays = np.array(list(found))
        grown = [arrays]
        for setting in product((False, True), repeat=len(firsts)):
            source = np.arange(nodes)
            for first, exchanged in zip(firsts, setting, strict=True):
                if exchanged:
                    source[[first, first ^ 1 << bit]] = first ^ 1 << bit, first
            grown.append(arrays[:, source])
        found = {tuple(row) for row in np.unique(np.concatenate(grown), axis=0).tolist()}
    return len(found)


def slots(messages: Sequence[tuple[int, int]], nodes: int, words: int) -> list[int]:
    """A slot for each message (sender, receiver); no node sends or receives twice in one (Koenig's theorem).

    Every node may send at most `words` messages and receive as many; then `words` slots do. By alternating chains.
    """
    sent = -np.ones((nodes, words), int)  # index of the message that a node sends in a slot
    received = -np.ones((nodes, words), int)
    for index, (sender, receiver) in enumerate(messages):
        if (sent[sender] >= 0).all() or (received[receiver] >= 0).all():
            raise ValueError(f"a node sends or receives more than {words} messages in one round")
        free, other = int(np.argmin(sent[sender] >= 0)), int(np.argmin(received[receiver] >= 0))
        chain, node, at_receiver = [], receiver, True
        slot = free
        while (held := (received if at_receiver else sent)[node, slot]) >= 0:  # free slot of the sender, taken here
            chain.append((int(held), slot))
            node, at_receiver = messages[held][0 if at_receiver else 1], not at_receiver
            slot = other if slot == free else free
        for held, slot in chain:
            sent[messages[held][0], slot] = received[messages[held][1], slot] = -1
        for held, slot in chain:
            new = other if slot == free else free
            sent[messages[held][0], new] = received[messages[held][1], new] = held
        sent[sender, free] = received[receiver, free] = index
    return [int(np.flatnonzero(sent[sender] == index)[0]) for index, (sender, _) in enumerate(messages)]
