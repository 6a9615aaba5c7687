"""Vision transformers with Kolmogorov-Arnold attention: small ones trained on digits, and what the operator costs.

The operator is `theory.operators.attention.kolmogorov_arnold`; here it gets parameters, one set per head. Sizes are
far below the paper's (ViT-T, S, B on 197 tokens); those are built for time and memory only.
Source: Maity et al., arXiv:2503.10632.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, silu

from empirical.data import digits, patches
from empirical.layers import Operator, Style
from empirical.training import Models, Recipe, device, fit
from empirical.transformer import Classifier
from theory.operators.attention import kolmogorov_arnold, scores, softmax

Variant = Literal["softmax", "karat", "frozen", "unmixed", "SiLU base", "identity base"]
TOKENS, RANK, GRID = 16, 6, 3
SIZES: dict[str, dict[str, int]] = {
    "small": {"width": 16, "heads": 2, "layers": 2, "seeds": 16, "steps": 160, "batch": 32},
    "full": {"width": 32, "heads": 4, "layers": 3, "seeds": 32, "steps": 600, "batch": 128},
}


class KolmogorovArnold(nn.Module):
    """The learnable operator of one layer, called like any other with q, k (batch, heads, tokens, width).

    Coefficients start at N(0, 1 / (N G)) and W at N(0, 1 / r), so that each weight has variance 1; the paper starts all
    at N(0, 1).

    learned  False: what the operator starts with stays, as a buffer (`fit` trains every parameter)
    mixing   factor on W; 0 switches attention off
    base     b in phi_pq(t) = b(t) + sum_g ..., here over sqrt(N) as the coefficients are; None is b = 0
    """

    cosine: Tensor
    sine: Tensor
    mix: Tensor

    def __init__(
        self,
        heads: int,
        tokens: int,
        rank: int,
        grid: int,
        *,
        learned: bool = True,
        mixing: float = 1.0,
        base: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        size, width = 1 / math.sqrt(tokens * grid), mixing / math.sqrt(rank)
        start = {
            "cosine": size * torch.randn(heads, rank, tokens, grid),
            "sine": size * torch.randn(heads, rank, tokens, grid),
            "mix": width * torch.randn(heads, tokens, rank),
        }
        for name, tensor in start.items():
            if learned:
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        s = scores(q, k)
        weights: Tensor = kolmogorov_arnold(s, self.cosine, self.sine, self.mix)
        if self.base is None:
            return weights
        # b(a_q) is the same for all units p, so that W brings its sum over the row to the keys by the sums of its rows.
        shift = self.base(s).sum(-1, keepdim=True) / math.sqrt(s.shape[-1])
        return weights + shift * self.mix.sum(-1)[..., None, :]


def operators(variant: Variant, heads: int, layers: int) -> list[Operator]:
    """One operator a layer."""
    if variant == "softmax":
        return [softmax] * layers
    learned, mixing = variant not in ("frozen", "unmixed"), 0.0 if variant == "unmixed" else 1.0
    bases: dict[str, Callable[[Tensor], Tensor]] = {"SiLU base": silu, "identity base": identity}
    return [
        KolmogorovArnold(heads, TOKENS, RANK, GRID, learned=learned, mixing=mixing, base=bases.get(variant))
        for _ in range(layers)
    ]


def identity(s: Tensor) -> Tensor:
    """The base function b(t) = t."""
    return s


def train(variant: Variant, seed: int, scale: str = "small") -> Models:
    """Models of all seeds of this scale, on the training digits."""
    size = SIZES[scale]
    style = Style(width=size["width"], heads=size["heads"], hidden=2)
    images, labels = digits("train")
    tokens = patches(images)

    def build() -> nn.Module:
        return Classifier(
            4, TOKENS, 10, style=style, layers=size["layers"],
            operators=operators(variant, size["heads"], size["layers"]),
        )  # fmt: skip

    def batches(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (size["seeds"], size["batch"]), generator=generator)
        return tokens[chosen], labels[chosen]

    return fit(
        f"karat-{variant.replace(' ', '-')}",
        __file__,
        {"variant": variant, **size},
        build=build,
        loss=loss,
        batches=batches,
        recipe=Recipe(size["steps"], rate=1e-2),
        seed=seed,
        seeds=size["seeds"],
    )


def loss(model: Callable[[Tensor], Tensor], tokens: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of one model."""
    return cross_entropy(model(tokens), labels)


def accuracy(models: Models) -> np.ndarray:
    """(seeds,): share of the test digits that each model gets right."""
    images, labels = digits("test")
    found = models(patches(images).to(device())).argmax(dim=-1)
    return (found == labels.to(device())).double().mean(dim=-1).cpu().numpy()


def rescaled(models: Models, factor: float) -> Models:
    """The same functions with attention weights `factor` times as large: W times it, the output layer divided by it."""

    def one(name: str, tensor: Tensor) -> Tensor:
        if name.endswith("operator.mix"):
            return tensor * factor
        return tensor / factor if name.endswith("layer.output.weight") else tensor

    return Models(models.skeleton, {name: one(name, tensor) for name, tensor in models.tensors.items()})


def weights(models: Models, count: int = 64) -> np.ndarray:
    """(seeds, layers, images, heads, tokens, tokens): attention weights on the first test digits, float64."""
    found = []
    for seed in range(len(models)):
        model = models.one(seed)
        assert isinstance(model, Classifier)
        with torch.no_grad():
            x = model.places(model.patch(patches(digits("test")[0][:count]).to(device())))
            layers = []
            for block in model.blocks:
                branch: Any = block.attention
                layers.append(branch.layer.weights(branch.norm(x)))
                x = block(x)
        found.append(torch.stack(layers))
    return torch.stack(found).double().cpu().numpy()


def dot(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Inner product of two sets of parameters."""
    return torch.stack([(a[name] * b[name]).sum() for name in a]).sum()


def sharpness(models: Models, seed: int, *, rounds: int = 6, images: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(seeds,) top eigenvalue of the training loss' Hessian by power iteration, and (seeds,) the training loss there.

    The eigenvalue is that of largest absolute value, with its sign: a Rayleigh quotient, so never above the true one.
    """
    pictures, labels = digits("train")
    tokens, labels = patches(pictures[:images]).to(device()), labels[:images].to(device())
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(tensor.shape, generator=generator).to(tensor) for name, tensor in models.tensors.items()}

    def one(state: dict[str, Tensor], direction: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        def objective(parameters: dict[str, Tensor]) -> Tensor:
            return cross_entropy(torch.func.functional_call(models.skeleton, parameters, (tokens,)), labels)

        for _ in range(rounds):
            size = dot(direction, direction).sqrt()
            direction = {name: d / size for name, d in direction.items()}
            image = torch.func.grad(lambda p, d=direction: dot(torch.func.grad(objective)(p), d))(state)
            value = dot(image, direction)
            direction = image
        return value, objective(state)

    values, losses = torch.func.vmap(one)(models.tensors, start)
    return values.detach().double().cpu().numpy(), losses.detach().double().cpu().numpy()


# -- What the operator costs -------------------------------------------------------------------------------------------


def broadcast_operator(s: Tensor, cosine: Tensor, sine: Tensor, mix: Tensor) -> Tensor:
    """`kolmogorov_arnold` with every unit phi_pq evaluated on its own: tensors of n m r G entries."""
    grid = torch.arange(1, cosine.shape[-1] + 1, dtype=s.dtype, device=s.device)
    angles = (s[..., None, :, None] * grid).expand(*s.shape[:-1], *cosine.shape[-3:]).clone()  # (..., n, r, m, G)
    hidden = (angles.cos() * cosine + angles.sin() * sine).sum(dim=(-2, -1))
    return hidden @ mix.transpose(-2, -1)


def bytes_for_backward(operator: Callable[..., Tensor], tokens: int, rank: int, grid: int = GRID) -> int:
    """What the operator's forward pass keeps for its backward pass, for one head and one image, parameters left out."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(rank, tokens, grid), (rank, tokens, grid), (tokens, rank)]
    parameters = [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]
    s = torch.randn(tokens, tokens, generator=draw).requires_grad_()
    own = {tensor.untyped_storage().data_ptr() for tensor in parameters}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        operator(s, *parameters).sum()
    return sum(kept.values())


def vision_transformer(width: int, heads: int, rank: int | None, grid: int, tokens: int = 197) -> nn.Module:
    """Twelve blocks of the width of ViT-T, S or B; rank None means softmax, rank = tokens the full operator."""
    each: list[Operator] = [softmax if rank is None else KolmogorovArnold(heads, tokens, rank, grid) for _ in range(12)]
    return Classifier(768, tokens, 10, style=Style(width=width, heads=heads), layers=12, operators=each)


def gpu_cost(model: nn.Module, batch: int = 32, repeats: int = 10, tokens: int = 197) -> dict[str, float]:
    """Peak gigabytes of a training step, its seconds, and seconds of an inference, float32 on a GPU; medians."""
    model = model.cuda()
    x, y = torch.randn(batch, tokens, 768, device="cuda"), torch.zeros(batch, dtype=torch.long, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters())
    torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    def infer() -> None:
        with torch.no_grad():
            model(x)

    found = {"step": _median(step, repeats)}
    found["memory"] = torch.cuda.max_memory_allocated() / 1e9
    found["inference"] = _median(infer, repeats)
    return found


def _median(call: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(np.median(times[3:]))
