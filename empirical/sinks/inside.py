"""What the papers on sinks measure inside a model, over many sequences: `look_inside(model, tokens)`.

Sequences pass in batches and layers one after the other, so that one attention matrix of one batch is held at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from empirical.sinks.observe import Layer, observe
from theory.sinks import measures


@dataclass(frozen=True)
class Inside:
    """Float32; L layers, H heads, n tokens; means over sequences.

    sinks        (L, H, n): share of sequences where token k has importance above 0.3, from the weights as they are
    proxy        (L, H): the same share for the first token where rows are scaled to sum 1, as G's table 6 does
    star         (L, H): the same share for the key in front that belongs to no token; 0 where there is none
    importance   (L, H, n): mean importance of each token
    mass         (L, H): mean sum of a row over the tokens
    entropy      (L, H, n): of the row of each query, scaled to sum 1, nats
    values       (L, H): length of the first token's value over the mean of the others'; `keys`: the same of its key
    angle        (L, H): mean cosine of queries with the first key, less that with the other keys they see
    largest      (L, n): mean over sequences of the largest magnitude of a token's hidden state, as layer l gets it
    median       (L,): median magnitude of the hidden states
    kurtosis     (L,): mean kurtosis of a token's hidden state
    """

    sinks: Tensor
    proxy: Tensor
    star: Tensor
    importance: Tensor
    mass: Tensor
    entropy: Tensor
    values: Tensor
    keys: Tensor
    angle: Tensor
    largest: Tensor
    median: Tensor
    kurtosis: Tensor

    @property
    def peak(self) -> Tensor:
        """The largest activation of a layer over its median, in the layer where this is most; leading axes stay."""
        return (self.largest.amax(-1) / self.median).amax(-1)


def look_inside(model: nn.Module, tokens: Tensor, *, batch: int = 25) -> Inside:
    """Measure a model on tokens (sequences, n), n at least 2.

    Args:
        batch: sequences that pass at a time.

    Raises:
        ValueError: no sequence, or one token: nothing could be a sink.
    """
    if tokens.shape[0] < 1 or tokens.shape[1] < 2:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)}: give one sequence or more, of two tokens or more")
    totals: dict[int, dict[str, Tensor]] = {}
    for part in tokens.split(batch):

        def add(layer: Layer, share: float = len(part) / len(tokens)) -> None:
            kept = totals.setdefault(layer.index, {})
            for name, mean in _means(layer).items():
                kept[name] = kept.get(name, 0) + share * mean.float()

        observe(model, part, add)
    layers = [totals[index] for index in sorted(totals)]
    return Inside(**{
        field.name: torch.stack([layer[field.name] for layer in layers]).cpu() for field in fields(Inside)
    })  # fmt: skip


def _means(layer: Layer) -> dict[str, Tensor]:
    """Means over the batch of one layer, (H, n), (H,), (n,) or ()."""
    weights, stars = layer.weights.float(), layer.stars
    scaled = measures.proxy(weights)
    importance = measures.importance(weights)
    hidden = layer.hidden.float()
    values = {
        "sinks": measures.sinks(weights)[..., stars:].float(),
        "proxy": measures.sinks(scaled)[..., stars].float(),
        "star": measures.sinks(weights)[..., :stars].any(-1).float(),
        "importance": importance[..., stars:],
        "mass": measures.row_mass(weights[..., stars:]).mean(-1),
        "entropy": measures.entropy(scaled),
        "values": measures.length_ratio(layer.values.float()),
        "keys": measures.length_ratio(layer.keys.float()),
        "angle": _angle(layer),
        "largest": hidden.abs().amax(-1),
        "median": hidden.abs().flatten(1).median(-1).values,
        "kurtosis": measures.kurtosis(hidden).mean(-1),
    }
    return {name: value.mean(0) for name, value in values.items()}


def _angle(layer: Layer) -> Tensor:
    """(batch, H): cosine with the first key, less that with the later keys each query sees itself or before it."""
    cosines = measures.cosines(layer.queries.float(), layer.keys.float())[..., 1:, :]
    others = cosines[..., 1:].tril()  # query t >= 1 and keys 1..t
    count = torch.arange(1, cosines.shape[-2] + 1, device=cosines.device)
    return (cosines[..., 0] - others.sum(-1) / count).mean(-1)
