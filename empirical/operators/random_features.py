"""Learning curves of random-feature attention and its rivals: ridge on kernels of finitely or infinitely many heads.

Source: the simulations of Section 5 of arXiv:2307.11353 (d = N = 16, M = 1000 heads, from memory; no code was
published). Inputs, targets and heads are drawn anew for each repetition. The same lines run on numpy (CPU) and, where a
device is given, on torch in float64 there. All targets share one eigendecomposition per model and sample size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from empirical.checkpoints import Lacks
from theory.operators.random_features import (
    biased_kernel,
    diagonal_mean,
    gaussian_heads,
    kernel,
    network_kernel,
    sphere,
    symmetrised_network_kernel,
)
from theory.operators.random_features_ridge import head_kernel, validated_errors
from theory.operators.random_features_targets import TARGETS

Kernel = Callable[[Any, Any], Any]
PENALTIES = tuple(10.0**k for k in range(-9, 2))
"""Ridge penalties to choose from, on the validation inputs."""


@dataclass(frozen=True)
class Sample:
    """Inputs x (train + validation + test, N + 1, d) and noise-free responses y (as many, targets).

    y is scaled so that a constant predictor has test error 1 at best.

    noise  (train + validation, targets): added to what is trained and validated on, never to test responses.
    """

    x: np.ndarray
    y: np.ndarray
    noise: np.ndarray
    validation: int
    test: int

    @property
    def train(self) -> int:
        return len(self.x) - self.validation - self.test


def sample(
    draw: np.random.Generator,
    d: int,
    keys: int,
    train: int,
    names: Iterable[str],
    *,
    noise: float = 0.0,
    validation: int = 200,
    test: int = 600,
) -> Sample:
    """Uniform unit tokens, a random unit direction b, and the named targets over their deviation on the test set.

    noise  standard deviation of the training noise. "random labels" is the name of standard Gaussian responses.
    """
    x = sphere(draw, train + validation + test, keys + 1, d)
    b = sphere(draw, d)
    columns = [draw.standard_normal(len(x)) if name == "random labels" else TARGETS[name](x, b) for name in names]
    y = np.stack([column / column[-test:].std() for column in columns], axis=1)
    return Sample(x, y, noise * draw.standard_normal((train + validation, y.shape[1])), validation, test)


def heads(draw: np.random.Generator, count: int, d: int, mean: np.ndarray | None = None) -> Kernel:
    """The kernel of `count` random heads of this mean: float32 features on numpy, float64 on torch."""
    W = gaussian_heads(draw, count, d, mean)

    def of_heads(x: Any, y: Any) -> Any:
        if isinstance(x, np.ndarray):
            return head_kernel(x.astype(np.float32), y.astype(np.float32), W.astype(np.float32)).astype(float)
        return head_kernel(x, y, x.new_tensor(W))

    return of_heads


def learning_curve(kernel: Kernel, data: Sample, sizes: Sequence[int], device: Any = None) -> np.ndarray:
    """Test errors (sizes, targets) of validated ridge on the first n training inputs, in units of the best constant's.

    device  a torch device to compute on; numpy if None. Memory: one (inputs, train) kernel and a Spectrum.
    """
    held_out = data.validation + data.test
    n = max(sizes)
    rows = [*range(n), *range(data.train, data.train + held_out)]
    x, clean = (_to(device, one[rows]) for one in (data.x, data.y))
    noisy = clean[: n + data.validation] + _to(device, data.noise[rows[: -data.test]])
    gram = kernel(x, x[:n])
    validation, test = slice(n, n + data.validation), slice(n + data.validation, None)
    errors = []
    for k in sizes:
        y = noisy[:k], noisy[validation], clean[test]
        found = validated_errors(gram[:k, :k], gram[validation, :k], gram[test, :k], y, PENALTIES)
        errors.append(found if device is None else found.cpu().numpy())
    return np.array(errors)


def model(name: str, draw: np.random.Generator, d: int, count: int) -> Kernel:
    """A kernel by the name that the pages show; `count` heads where the name says so, infinitely many otherwise."""
    rotation = np.zeros((d + 1, d + 1))
    rotation[:d, :d] = math.sqrt(d) * np.linalg.qr(draw.standard_normal((d, d)))[0]
    means = {
        "BRFA": diagonal_mean(d, math.sqrt(d)),
        "mean -I": diagonal_mean(d, -math.sqrt(d)),
        "mean rotated": rotation,
    }
    if name in means:
        return lambda x, y: biased_kernel(x, y, means[name])
    finite = {"RFA, M heads": None, "BRFA, M heads": diagonal_mean(d)}
    if name in finite:
        return heads(draw, count, d, finite[name])
    return {"RFA": kernel, "RFMLP": network_kernel, "symmetrised RFMLP": symmetrised_network_kernel}[name]


@dataclass(frozen=True)
class Experiment:
    """What a set of learning curves depends on. `seed` and the repetition's number seed everything that is random."""

    seed: int
    repetitions: int
    d: int
    keys: int
    sizes: tuple[int, ...]
    models: tuple[str, ...]
    targets: tuple[str, ...]
    count: int = 1000
    noise: float = 0.0
    validation: int = 200
    test: int = 600

    def curves(self, device: Any = None) -> dict[str, np.ndarray]:
        """Test errors (repetitions, sizes, targets) of each model, on data that the models share; kept on disk."""
        from empirical.artefacts import artefact

        config = asdict(self) | {"device": str(device)}
        kept = artefact("random-features", __file__, config, lambda unfinished: self._measure(device))
        return {name: kept[name].numpy() for name in self.models}

    def of(self, curves: dict[str, np.ndarray], name: str, target: str) -> np.ndarray:
        """One model's errors on one target, (repetitions, sizes)."""
        return curves[name][:, :, self.targets.index(target)]

    def _measure(self, device: Any) -> dict[str, Any]:
        import torch

        found: dict[str, list[np.ndarray]] = {name: [] for name in self.models}
        for repetition in range(self.repetitions):
            draw = np.random.default_rng([self.seed, repetition])
            held_out = {"validation": self.validation, "test": self.test}
            data = sample(draw, self.d, self.keys, max(self.sizes), self.targets, noise=self.noise, **held_out)
            for name in self.models:
                of_model = model(name, np.random.default_rng([self.seed, repetition, 1]), self.d, self.count)
                found[name].append(learning_curve(of_model, data, self.sizes, device))
        return {name: torch.from_numpy(np.array(curves)) for name, curves in found.items()}


def _to(device: Any, array: np.ndarray) -> Any:
    if device is None:
        return array
    import torch

    return torch.as_tensor(array, device=device)


def slopes(x: Sequence[float], curves: np.ndarray) -> np.ndarray:
    """Least-squares slopes of log curves (..., len(x)) against log x."""
    log_x = np.log(x) - np.log(x).mean()
    slope: np.ndarray = np.log(curves) @ log_x / (log_x @ log_x)
    return slope


def samples_for(level: float, sizes: Sequence[int], curve: np.ndarray) -> float:
    """Sample size at which an error curve (sizes,) first falls to the level, log-log interpolated; inf if never."""
    below = np.flatnonzero(curve <= level)
    if not len(below):
        return float("inf")
    i = int(below[0])
    if i == 0:
        return float(sizes[0])
    share = np.log(curve[i - 1] / level) / np.log(curve[i - 1] / curve[i])
    return float(sizes[i - 1] * (sizes[i] / sizes[i - 1]) ** share)


def query_key_products(network: Any) -> list[np.ndarray]:
    """W_Q^T W_K of each head, (heads, d, d) float64 for each attention layer of a Hugging Face model.

    Layers are found by the names of their linear maps: `query` and `key`, or `q_proj` and `k_proj` (where fewer key
    heads are shared by groups of queries). Rotary positions, where there are some, are left out.

    Raises:
        Lacks: no such layer.
    """
    modules, products, shape = dict(network.named_modules()), [], network.config
    for name, module in modules.items():
        for query, key in (("query", "key"), ("q_proj", "k_proj")):
            path, _, last = name.rpartition(".")
            if last == query and f"{path}.{key}" in modules:
                width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
                Q, K = (
                    one.weight.detach().double().cpu().numpy().reshape(-1, width, one.weight.shape[1])
                    for one in (module, modules[f"{path}.{key}"])
                )
                products.append(np.swapaxes(Q, 1, 2) @ np.repeat(K, len(Q) // len(K), axis=0))
    if not products:
        raise Lacks("attention layer with linear maps named query and key, or q_proj and k_proj")
    return products
