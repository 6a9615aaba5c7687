"""What a causal language model predicts while its attention is changed: ZeroTuning and ACT, through the whole model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from empirical.checkpoints import BATCH, Checkpoint, Lacks
from empirical.sinks.observe_checkpoint import Edit, observe
from empirical.sinks.portrait import sequences
from theory.sinks import act, zerotuning


@dataclass(frozen=True)
class ScaleToken:
    """In every head the attention to one token is scaled by gamma, and rows sum to 1 again: ZeroTuning for token 0."""

    gamma: float
    token: int = 0

    def __call__(self, index: int, weights: Tensor) -> Tensor:
        tuned: Tensor = zerotuning.tuned(weights.float(), self.gamma, self.token)
        return tuned.to(weights.dtype)


@dataclass(frozen=True)
class Calibrate:
    """In every head later sinks keep beta of their attention, what is freed goes to the others: ACT."""

    beta: float = act.BETA

    def __call__(self, index: int, weights: Tensor) -> Tensor:
        calibrated: Tensor = act.calibrate(weights.float(), self.beta)
        return calibrated.to(weights.dtype)


@dataclass(frozen=True)
class Predictions:
    """Of each token of S sequences of n but the first, (S, n - 1): what the model said of it.

    loss     nats
    right    bool: it was held most likely
    entropy  nats: of the distribution it was drawn from
    """

    loss: np.ndarray
    right: np.ndarray
    entropy: np.ndarray


def predictions(checkpoint: Checkpoint, edit: Edit | None = None) -> Predictions:
    """Over windows of the checkpoint's text; a repeated call costs nothing, where equal edits are one.

    Raises:
        Lacks: the model predicts no next token, or its attention cannot be changed.
        ValueError: as in `sequences`.
    """
    if not checkpoint.source.predicts:
        raise Lacks("next-token distribution: it is an encoder")
    return checkpoint.keep(("predictions", edit), lambda: _predict(checkpoint, edit))


@torch.inference_mode()
def _predict(checkpoint: Checkpoint, edit: Edit | None) -> Predictions:
    parts: list[tuple[Tensor, ...]] = []
    for batch in sequences(checkpoint, "natural").split(BATCH):
        logs = observe(checkpoint.model, batch, edit=edit).logits[:, :-1].float().log_softmax(-1)
        target = batch[:, 1:].to(logs.device)
        loss = -logs.gather(-1, target[..., None])[..., 0]
        parts.append((loss, logs.argmax(-1) == target, -(logs.exp() * logs).sum(-1)))
    return Predictions(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))
