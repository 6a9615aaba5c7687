"""One attention layer trained twice: with its output times a factor, and with another learning rate instead.

Source: Gu et al., arXiv:2410.10781, appendix D.4. All numbers are float64; a factor that is a power of two makes every
rescaling exact, so that the two trainings must agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from empirical.layers import Attention, Style
from theory.sinks.sink_emergence_identities import Recipe

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda params, recipe: torch.optim.SGD([{"params": params, "lr": recipe.rate}]),
    "AdamW": lambda params, recipe: torch.optim.AdamW(
        [{"params": params, "lr": recipe.rate, "eps": recipe.eps, "weight_decay": recipe.decay}], betas=(0.9, 0.95)
    ),
}


def trained_output(
    seed: int,
    optimiser: str,
    recipe: Recipe,
    output_recipe: Recipe,
    *,
    factor: float = 1.0,
    start: float = 1.0,
    clip: float | None = None,
    steps: int = 60,
) -> Tensor:
    """What the layer adds to the residual stream after training, (batch, length, width).

    Args:
        seed: of the initial weights and the data.
        optimiser: of `OPTIMISERS`.
        recipe: for all weights but W_O.
        output_recipe: for W_O.
        factor: of the layer's output.
        start: what the initial W_O is multiplied by.
        clip: largest length of the gradient of all weights together; None: not clipped.
        steps: on the whole data.
    """
    generator = torch.Generator().manual_seed(seed)
    x, target = torch.randn(2, 4, 8, 16, generator=generator, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = Attention(Style(16, 2, linear_bias=False)).double()
    W_O = layer.output.weight
    with torch.no_grad():
        W_O *= start
    others = [weight for weight in layer.parameters() if weight is not W_O]
    optimisers = [OPTIMISERS[optimiser](others, recipe), OPTIMISERS[optimiser]([W_O], output_recipe)]
    mask = torch.ones(8, 8, dtype=torch.bool).tril()
    for _ in range(steps):
        loss = ((x + factor * layer(x, mask=mask)).tanh() - target).square().mean()
        layer.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(layer.parameters(), clip)
        for each in optimisers:
            each.step()
    with torch.no_grad():
        return factor * layer(x, mask=mask)
