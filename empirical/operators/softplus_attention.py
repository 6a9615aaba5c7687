"""Small language models of bytes whose attention operator varies, and their loss far beyond the training length.

The models read the source text of Python's standard library. Every loss of a comparison is taken on the same target
bytes: a longer context only puts more text in front of them.
Source: the setting of Gao and Spratling, arXiv:2501.13428, section 4, with a byte model in place of GPT-2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from empirical.data import Part, excerpts, library_text
from empirical.layers import Position, Style
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import Decoder
from theory.operators.attention import Normaliser, Positive, elementwise, lssa, reweight, sigmoid

CHARACTERS = 128
"""Bytes above 126 are read as 127."""


@dataclass(frozen=True)
class Setting:
    """Size of the models and of their training: `length` is the number of bytes that they are trained to read."""

    length: int
    width: int
    heads: int
    layers: int
    hidden: float
    batch: int
    steps: int
    rate: float
    seeds: int
    longest: int
    """The longest context, in training lengths."""
    excerpts: int
    """Number of excerpts on which losses are measured."""

    @property
    def contexts(self) -> list[int]:
        """1, 2, 4, ... times the training length."""
        return [self.length * 2**i for i in range(int(math.log2(self.longest)) + 1)]


SETTINGS = {
    "small": Setting(32, 32, 1, 2, 2, batch=4, steps=250, rate=4e-3, seeds=12, longest=8, excerpts=24),
    "full": Setting(256, 256, 4, 3, 4, batch=16, steps=700, rate=1.5e-3, seeds=3, longest=16, excerpts=32),
}


@dataclass(frozen=True)
class Variant:
    """An attention operator, and how its model knows positions.

    positive, normalise  of the first stage
    dynamic              LSSA: softplus and l1 on cosines with the scale ln d ln m, whatever the two say
    power                of the re-weighting; 0: none
    keys                 the sigmoid has the offset -ln(keys), whatever the context; 0: no offset
    """

    positive: Positive = "exp"
    normalise: Normaliser = "l1"
    dynamic: bool = False
    power: float = 0
    keys: int = 0
    position: Position = "rotary"
    qk_norm: bool = False

    def weights(self, q: Tensor, k: Tensor, *, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """The operator: queries and keys to weights."""
        if self.dynamic:
            first = lssa(q, k, mask=mask)
        elif self.keys:
            first = sigmoid(q, k, mask=mask, bias=bias, offset=-math.log(self.keys))
        else:
            first = elementwise(q, k, positive=self.positive, normalise=self.normalise, mask=mask, bias=bias)
        return reweight(first, self.power, mask=mask) if self.power else first


VARIANTS = {
    "softmax": Variant(),
    "LSSA": Variant(dynamic=True),
    "LSSAR p=15": Variant(dynamic=True, power=15),
    "LSSAR p=3": Variant(dynamic=True, power=3),
    "sigmoid": Variant("sigmoid", "none", keys=-1),  # -1: the training length
    "softplus": Variant("softplus", "none"),
}
"""Trained at every scale."""
MORE = {
    "softmax QK-norm": Variant(qk_norm=True),
    "softmax ALiBi": Variant(position="alibi"),
    "softmax re-weighted p=15": Variant(power=15),
    "sigmoid l1 re-weighted p=15": Variant("sigmoid", power=15),
    "softplus l1": Variant("softplus"),
    "softplus over length": Variant("softplus", "length"),
    "sigmoid l1": Variant("sigmoid"),
    "sigmoid without offset": Variant("sigmoid", "none"),
    "ReLU": Variant("relu", "none"),
    "ReLU l1": Variant("relu"),
}
"""Other rows of the paper's tables, and two that they lack (QK-norm, ALiBi): trained where a check asks for them."""


def variant(name: str, setting: Setting) -> Variant:
    """The named variant for models of this training length."""
    found = {**VARIANTS, **MORE}[name]
    return replace(found, keys=setting.length) if found.keys < 0 else found


def build(setting: Setting, chosen: Variant) -> nn.Module:
    """One untrained model."""
    style = Style(setting.width, setting.heads, setting.hidden, position=chosen.position, qk_norm=chosen.qk_norm)
    return Decoder(CHARACTERS, setting.length, style=style, layers=setting.layers, operators=chosen.weights)


def text_of(part: Part) -> Tensor:
    """(count,) uint8 below 128: the standard library."""
    return library_text(part).clamp(max=CHARACTERS - 1)


def next_byte_loss(model: Callable[[Tensor], Tensor], text: Tensor) -> Tensor:
    """Mean cross-entropy in nats of text (batch, length + 1) int64, each byte from those before it."""
    return functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


def train(setting: Setting, chosen: Variant, seed: int) -> Models:
    """The models of one variant, one for each seed; all variants start alike and see the same excerpts."""
    text = text_of("train")

    def batches(generator: torch.Generator) -> tuple[Tensor]:
        return (excerpts(text, (setting.seeds, setting.batch), setting.length + 1, generator),)

    return fit(
        "softplus_attention",
        __file__,
        {"setting": asdict(setting), "variant": asdict(chosen)},
        build=lambda: build(setting, chosen),
        loss=next_byte_loss,
        batches=batches,
        recipe=Recipe(setting.steps, rate=setting.rate),
        seed=seed,
        seeds=setting.seeds,
    )


@cache
def losses(
    setting: Setting,
    chosen: Variant,
    seed: int,
    *,
    inference: Variant | None = None,
    contexts: tuple[int, ...] | None = None,
) -> np.ndarray:
    """(seeds, contexts): loss in nats on the last `length / 2` bytes of excerpts of the test text, by context.

    inference  the operator after training, where it differs: the parameters stay
    contexts   the setting's unless given
    """
    models = train(setting, chosen, seed)
    if inference is not None:
        models = Models(build(setting, inference).to(device()), models.tensors)
    generator = torch.Generator().manual_seed(seed + 1)
    text = excerpts(text_of("test"), (setting.excerpts,), setting.contexts[-1] + 1, generator).to(device())
    each = contexts or setting.contexts
    return np.stack([_loss(models, text[:, -context - 1 :], setting.length // 2) for context in each], axis=1)


def curves(name: str, scale: str, seed: int, *, then: str | None = None, steps: int | None = None) -> np.ndarray:
    """(seeds, contexts): losses of a variant's models; `then` names the variant whose operator they have afterwards."""
    setting = SETTINGS[scale] if steps is None else replace(SETTINGS[scale], steps=steps)
    inference = None if then is None else variant(then, setting)
    return losses(setting, variant(name, setting), seed, inference=inference)


def _loss(models: Models, text: Tensor, targets: int) -> np.ndarray:
    """(seeds,): mean loss on the last `targets` bytes of each excerpt (count, context + 1)."""
    total = torch.zeros(len(models), device=text.device)
    tokens = 4096 if text.is_cuda else 1024  # at once: large enough for the GPU, small enough for the cache
    for part in text.split(max(1, tokens // text.shape[1])):
        logits = models(part[:, :-1])[:, :, -targets:].flatten(0, 2)
        aims = part[:, -targets:].expand(len(models), -1, -1)
        total += functional.cross_entropy(logits, aims.flatten(), reduction="none").view(len(models), -1).sum(1)
    mean: np.ndarray = (total.double() / (len(text) * targets)).cpu().numpy()
    return mean


def followed(setting: Setting, chosen: Variant, seed: int) -> np.ndarray:
    """(seeds, contexts): `losses` of a sigmoid whose offset follows the context, -ln(context), at inference."""
    return np.concatenate(
        [
            losses(setting, chosen, seed, inference=replace(chosen, keys=context), contexts=(context,))
            for context in setting.contexts
        ],
        axis=1,
    )


def copying(setting: Setting, chosen: Variant, seed: int, *, key: int = 16, prompts: int = 16) -> np.ndarray:
    """(seeds, 3): what having seen a random word of `key` letters saves when it is spelt again, in nats a letter.

    At 1x, 2x, 4x. The word stands at the start of a context of library text and again at its end, where its second
    half is to be told; compared with another word at the start. 0: nothing is retrieved.
    """
    models, generator = train(setting, chosen, seed), torch.Generator().manual_seed(seed + 2)
    text = excerpts(text_of("test"), (prompts,), setting.contexts[-1] + 1, generator)
    words = torch.randint(ord("a"), ord("z") + 1, (2, prompts, key), generator=generator)
    found = []
    for context in setting.contexts[:3]:
        same, other = (
            _loss(models, torch.cat([word, text[:, key : context + 1 - key], words[0]], dim=1).to(device()), key // 2)
            for word in words
        )
        found.append(other - same)
    return np.stack(found, axis=1)


def letter_entropy() -> float:
    """Entropy of single bytes of the test text, in nats: the least loss without any context."""
    share = np.bincount(text_of("test").numpy(), minlength=CHARACTERS) / len(text_of("test"))
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())
