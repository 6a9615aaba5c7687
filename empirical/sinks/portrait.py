"""What the papers on sinks and outliers measure of a checkpoint, sequence by sequence: `portrait(checkpoint, kind)`.

Three kinds of sequences (Gu et al., arXiv:2410.10781, section 3.3): windows of the checkpoint's text, with the special
tokens that its tokenizer puts around a text; tokens drawn at random; one random token, repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from empirical.checkpoints import BATCH, LENGTH, SEQUENCES, Checkpoint, Weights
from empirical.sinks.observe_checkpoint import Layer, observe
from theory.sinks import act, measures
from theory.sinks.zerotuning import tuned

Kind = Literal["natural", "random", "repeated"]
FEWEST = 40
"""Sequences below which the sign tests of the claims could decide nothing on a half of them."""
GAMMAS = (0.5, 1.0, 2.0)
"""Factors on the first token's attention, at which the entropy of rows is measured."""
TOP = 4
"""How many of the largest elements of a hidden state are kept."""
FEWEST_QUERIES = 10
"""A key is judged if so many queries see it. A head that looks at one place before each query gives a key 1 / 10 then;
and under uniform attention the first of fewer tokens would pass for a sink."""


@dataclass(frozen=True)
class Portrait:
    """numpy, float32 unless said; S sequences, L layers with attention, H heads, n tokens.

    tokens      (S, n) int64
    importance  (S, L, H, n): mean attention that a key gets from the queries that see it
    shuffled    (S, L, H, n): the same where the weights of each row, but the first, are in random order
    entropy     (S, L, G, n): of each query's row, mean over heads, with the first weight scaled by each of `GAMMAS`
    values      (S, L, H, n): length of each value; `keys`: of each key; no layer where the model does not show them
    cosines     (S, L, H, n): of each key, mean over the queries that see it
    top         (S, L, n, 4): the largest magnitudes of a token's hidden state as the layer leaves it
    dimensions  (S, L, n, 4) int64: where they are
    mean        (S, L): mean magnitude of all elements of those hidden states; `median`: their median
    spread      (S, L): largest distance of a token's hidden state from the first one's, over the length of that
    apart       (S, L): the same of what the layer gets
    causal      (S, L) bool: no query sees a later key
    """

    tokens: np.ndarray
    importance: np.ndarray
    shuffled: np.ndarray
    entropy: np.ndarray
    values: np.ndarray
    keys: np.ndarray
    cosines: np.ndarray
    top: np.ndarray
    dimensions: np.ndarray
    mean: np.ndarray
    median: np.ndarray
    spread: np.ndarray
    apart: np.ndarray
    causal: np.ndarray

    @property
    def is_causal(self) -> bool:
        return bool(self.causal.all())

    @property
    def outliers(self) -> np.ndarray:
        """(S, L, n, 4) bool: which of `top` exceed `TAU` times the mean magnitude in their layer."""
        return np.asarray(self.top > measures.TAU * self.mean.mean(axis=0)[:, None, None])

    @property
    def attention_outliers(self) -> np.ndarray:
        """(S, L, n) bool: keys with a tenth of all attention or more, mean over heads. Source: code of An et al."""
        n = self.tokens.shape[1]
        queries = np.arange(n, 0, -1) if self.is_causal else n
        return np.asarray(self.importance.mean(axis=2) * queries >= 0.1 * n)

    @property
    def judged(self) -> int:
        """How many keys, from the first, are seen by enough queries."""
        n = self.tokens.shape[1]
        return n - FEWEST_QUERIES + 1 if self.is_causal else n


def portrait(checkpoint: Checkpoint, kind: Kind = "natural", weights: Weights = "trained") -> Portrait:
    """Measure the model, or its architecture with fresh weights; a repeated call costs nothing.

    Raises:
        ValueError: the dtype is too narrow; else as in `sequences` and `observe`.
    """
    return checkpoint.keep(("portrait", kind, weights), lambda: _measure(checkpoint, kind, weights))


def _measure(checkpoint: Checkpoint, kind: Kind, weights: Weights) -> Portrait:
    tokens, model = sequences(checkpoint, kind), checkpoint.model_with(weights)
    rng = np.random.default_rng(checkpoint.seed)
    parts = []
    for batch in tokens.split(BATCH):
        layers: list[dict[str, np.ndarray]] = []

        def add(layer: Layer, layers: list[dict[str, np.ndarray]] = layers) -> None:
            layers.append(_of_layer(layer, rng))

        observe(model, batch, add)
        parts.append({name: np.stack([layer[name] for layer in layers], axis=1) for name in layers[0]})
    names = [field.name for field in fields(Portrait) if field.name != "tokens"]
    found = Portrait(tokens.numpy(), **{name: np.concatenate([part[name] for part in parts]) for name in names})
    if not (np.isfinite(found.top).all() and np.isfinite(found.importance).all()):
        dtype = checkpoint.source.dtype
        raise ValueError(f"{checkpoint.source.name} overflows in {dtype}: give --dtype bfloat16 or --dtype float32")
    return found


def _of_layer(layer: Layer, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What is measured of one layer, the batch first."""
    weights = layer.weights.float()
    batch, heads, n = weights.shape[:3]
    causal = not bool(weights.triu(1).any())
    output = layer.output.float()
    size, places = output.abs().topk(TOP, dim=-1)
    found = {
        "importance": measures.importance(weights) if causal else weights.mean(-2),
        "entropy": torch.stack([measures.entropy(tuned(weights, gamma)).mean(1) for gamma in GAMMAS], dim=1),
        "values": _lengths(layer.values, (batch, heads, n)),
        "keys": _lengths(layer.keys, (batch, heads, n)),
        "cosines": _cosines(layer, causal),
        "top": size,
        "dimensions": places,
        "mean": output.abs().mean((1, 2)),
        "median": output.abs().flatten(1).median(-1).values,
        "spread": _from_the_first(output),
        "apart": _from_the_first(layer.hidden.float()),
        "causal": torch.full((batch,), causal),
    }
    shuffled = np.zeros((batch, heads, n), dtype=np.float32)
    if causal:
        shuffled[..., 0] = found["importance"][..., 0].cpu()
        shuffled[..., 1:] = measures.importance(act.shuffle_rows(weights[..., 1:, 1:].cpu().numpy(), rng))
    return {name: value.cpu().numpy() for name, value in found.items()} | {"shuffled": shuffled}


def _lengths(x: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    return torch.full(shape, torch.nan) if x is None else measures.lengths(x.float())


def _cosines(layer: Layer, causal: bool) -> Tensor:
    """(batch, H, n): of each key, mean cosine with the queries that see it; by sums of queries of length 1."""
    if layer.queries is None or layer.keys is None:
        return torch.full(layer.weights.shape[:3], torch.nan)
    queries, keys = (one.float() / measures.lengths(one.float())[..., None] for one in (layer.queries, layer.keys))
    total = queries.flip(-2).cumsum(-2).flip(-2) if causal else queries.sum(-2, keepdim=True)
    count = torch.arange(keys.shape[-2], 0, -1, device=keys.device)[:, None] if causal else keys.shape[-2]
    return (keys * total / count).sum(-1)


def _from_the_first(hidden: Tensor) -> Tensor:
    """(batch,): the largest distance of a hidden state from the first token's, over the length of that."""
    first = hidden[:, :1]
    return measures.lengths(hidden - first).amax(-1) / measures.lengths(first)[:, 0]


def sink_heads(found: Portrait) -> np.ndarray:
    """(count, 3): layer, head and position of a sink, for each head that has one in the mean of every other sequence.

    Those are sequences 0, 2, 4, ..; what is said of these heads can be judged on the others.
    """
    mean = found.importance[::2, ..., : found.judged].mean(axis=0)
    place = mean.argmax(axis=-1)
    layers, heads = np.nonzero(mean.max(axis=-1) > measures.EPSILON)
    return np.stack([layers, heads, place[layers, heads]], axis=-1)


# -- what it reads -----------------------------------------------------------------------------------------------------


def sequences(checkpoint: Checkpoint, kind: Kind) -> Tensor:
    """(S, n) int64, n = 64 or as many as the model has positions. Windows of the text lie evenly over it.

    Raises:
        ValueError: the text is too short; the tokenizer has tokens that the model lacks; fewer than 10 positions,
            where uniform attention itself would pass for a sink.
    """
    n = min(LENGTH, checkpoint.positions or LENGTH)
    if n < FEWEST_QUERIES:
        raise ValueError(f"{checkpoint.source.name} reads {n} tokens: too few to tell a sink from uniform attention")
    if kind == "natural":
        return checkpoint.keep("windows", lambda: _windows(checkpoint, n))
    rng = np.random.default_rng(checkpoint.seed)
    special = set(checkpoint.tokenizer.all_special_ids)
    ordinary = [token for token in range(_vocabulary(checkpoint)) if token not in special]
    drawn = rng.choice(ordinary, size=(SEQUENCES, n if kind == "random" else 1))
    return torch.from_numpy(np.repeat(drawn, n // drawn.shape[1], axis=1))


def _windows(checkpoint: Checkpoint, n: int) -> Tensor:
    tokenizer = checkpoint.tokenizer
    before, after = special_tokens(tokenizer)
    inside = n - len(before) - len(after)
    # Enough text for so many windows, even if a token took 25 letters.
    text = tokenizer(checkpoint.text[: 25 * SEQUENCES * LENGTH], add_special_tokens=False, verbose=False)["input_ids"]
    count = min(SEQUENCES, len(text) // inside)
    if count < FEWEST:
        raise ValueError(
            f"the text has {len(text)} tokens, enough for {count} sequences of {inside}: give one of "
            f"{FEWEST * inside} tokens or more"
        )
    if max(text) >= checkpoint.source.config.get_text_config().vocab_size:
        raise ValueError(
            f"the tokenizer in {checkpoint.source.folder} has tokens that the model lacks: it is another's"
        )
    starts = np.linspace(0, len(text) - inside, count).astype(int)
    return torch.tensor([[*before, *text[start : start + inside], *after] for start in starts])


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and after a text."""
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _vocabulary(checkpoint: Checkpoint) -> int:
    return min(len(checkpoint.tokenizer), checkpoint.source.config.get_text_config().vocab_size)
