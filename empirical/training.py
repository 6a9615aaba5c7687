"""One training loop: several models of the same shape, one per seed, side by side in one batch of parameters.

    models = fit("digits", __file__, {"operator": "mala"}, build=..., loss=..., batches=..., recipe=Recipe(600), seed=0)
    models(images)          # seeds in front

Each parameter has the seeds as its first axis, so that AdamW, which acts on each number by itself, trains the models
independently; a step of eight small models costs little more than one of one. What `fit` returns comes from the cache
where the same code, configuration and seed were trained before (`empirical.artefacts`). It keeps its state every
half a minute and goes on from there when it was interrupted; --log-cli-level=INFO shows its progress.
"""

from __future__ import annotations

import copy
import gc
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from empirical.artefacts import Tensors, artefact, save

log = logging.getLogger("attest.training")
EVERY = 30.0
"""Seconds between two saved states, and between two lines of progress."""
Model = Callable[..., Tensor]


@dataclass(frozen=True)
class Recipe:
    """AdamW: linear warm-up over a share of the steps, then a cosine to 0; each model's gradient is clipped alone."""

    steps: int
    rate: float = 3e-3
    weight_decay: float = 0.0
    warmup: float = 0.05
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.99)

    def rate_at(self, step: int) -> float:
        """Learning rate of the given step, 0 .. steps - 1."""
        ramp = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.rate * ramp * (1 + math.cos(math.pi * step / self.steps)) / 2


class Models:
    """Trained models of one shape: parameters with the seeds in front."""

    def __init__(self, skeleton: nn.Module, tensors: Tensors) -> None:
        self.skeleton, self.tensors = skeleton, tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @torch.no_grad()
    def __call__(self, *inputs: Tensor, own: bool = False) -> Tensor:
        """What each model returns, (seeds, ...), for the same inputs, or with `own` for inputs with seeds in front."""
        return self.each(lambda model, *given: model(*given), *inputs, own=own)

    @torch.no_grad()
    def each(self, what: Callable[..., Any], *inputs: Tensor, own: bool = False) -> Any:
        """`what(model, *inputs)` for all models at once, by vmap; the result has the seeds in front."""
        one = _applied(self.skeleton, what)
        return vmap(one, in_dims=(0, *[0 if own else None] * len(inputs)))(self.tensors, *inputs)

    def one(self, seed: int) -> nn.Module:
        """The model of one seed, as a module of its own."""
        model = copy.deepcopy(self.skeleton)
        model.load_state_dict({name: tensor[seed].clone() for name, tensor in self.tensors.items()}, assign=True)
        return model


def device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    name: str,
    code: str,
    config: Mapping[str, Any],
    *,
    build: Callable[[], nn.Module],
    loss: Callable[..., Tensor],
    batches: Callable[[torch.Generator], tuple[Tensor, ...]],
    recipe: Recipe,
    seed: int,
    seeds: int = 1,
) -> Models:
    """Train `seeds` models, or take them from the cache.

    Args:
        name: what is trained, for the file's name and the progress.
        code: `__file__` of the module that defines build, loss and batches.
        config: all that these three depend on beside the code of that module, as JSON.
        build: makes one model; what it draws from torch's global generator differs from seed to seed.
        loss: (model, *batch of one seed) to a scalar; must be traceable by vmap, so no branch on values. For a GPU
            its gradient must not wait for values either, as that of torch.prod does: see `_recorded`.
        batches: the next batch of each seed, as tensors with the seeds in front; a seed sees what its row holds.
        recipe: how to train; 0 steps give untrained models.
        seed: of the models' initial weights and the batches.
        seeds: number of models.

    Raises:
        FloatingPointError: a loss was not finite.
    """
    skeleton, start = initial(build, seed, seeds)
    whole = {**config, "recipe": asdict(recipe), "seed": seed, "seeds": seeds, "device": device().type}

    def make(unfinished: Path) -> Tensors:
        return _train(name, skeleton, start, loss, batches, recipe, seed, unfinished)

    tensors = artefact(name, code, whole, make)
    return Models(skeleton.to(device()), {key: tensor.to(device()) for key, tensor in tensors.items()})


def initial(build: Callable[[], nn.Module], seed: int, seeds: int) -> tuple[nn.Module, Tensors]:
    """A model, and the stacked initial state of all seeds. The global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        models = [build() for _ in range(seeds)]
    parameters, buffers = stack_module_state(models)
    return models[0], {name: tensor.detach() for name, tensor in {**parameters, **buffers}.items()}


def _applied(skeleton: nn.Module, what: Callable[..., Any]) -> Callable[..., Any]:
    """(state of one model, *inputs) to what(model, *inputs)."""
    return lambda state, *inputs: what(lambda *given: functional_call(skeleton, state, given), *inputs)


def _train(
    name: str,
    skeleton: nn.Module,
    start: Tensors,
    loss: Callable[..., Tensor],
    batches: Callable[[torch.Generator], tuple[Tensor, ...]],
    recipe: Recipe,
    seed: int,
    unfinished: Path,
) -> Tensors:
    where = device()
    trained = {key for key, _ in skeleton.named_parameters()}
    skeleton.to(where)
    state = {key: tensor.to(where).requires_grad_(key in trained) for key, tensor in start.items()}
    parameters = [state[key] for key in sorted(trained)]
    rate = torch.tensor(recipe.rate, device=where)
    optimizer = torch.optim.AdamW(
        parameters,
        lr=rate if where.type == "cuda" else recipe.rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        capturable=where.type == "cuda",
    )
    generator = torch.Generator().manual_seed(seed)
    first = _resume(unfinished, state, sorted(trained), optimizer, generator)
    losses = vmap(_applied(skeleton, loss))

    def update(*batch: Tensor) -> Tensor:
        each = losses(state, *batch)
        optimizer.zero_grad()
        each.sum().backward()
        _clip(parameters, recipe.clip)
        optimizer.step()
        return each.detach()

    update = _recorded(update) if where.type == "cuda" else update
    began = said = time.monotonic()
    for step in range(first, recipe.steps):
        batch = [tensor.to(where, non_blocking=True) for tensor in batches(generator)]
        for group in optimizer.param_groups:
            group["lr"] = rate.fill_(recipe.rate_at(step)) if where.type == "cuda" else recipe.rate_at(step)
        each = update(*batch)
        if (now := time.monotonic()) - said > EVERY or step == recipe.steps - 1:
            said = now
            _check_finite(name, step, each)
            left = (now - began) / (step + 1 - first) * (recipe.steps - step - 1)
            log.info("%s: step %d of %d, loss %.4f, %.0f s left", name, step + 1, recipe.steps, each.mean(), left)
            _keep(unfinished, step + 1, state, sorted(trained), optimizer, generator)
    return {key: tensor.detach().cpu() for key, tensor in state.items()}


def _recorded(update: Callable[..., Tensor], ordinary: int = 3) -> Callable[..., Tensor]:
    """The update as a CUDA graph: its kernels, each shorter than its launch, are recorded once and replayed together.

    The first steps are ordinary ones, on a stream of their own as PyTorch asks for. Batches keep their shape.
    """
    graph, count = torch.cuda.CUDAGraph(), 0
    inputs: tuple[Tensor, ...] = ()
    output = torch.empty(0)

    def step(*batch: Tensor) -> Tensor:
        nonlocal count, inputs, output
        count += 1
        if count <= ordinary:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                each = update(*batch)
            torch.cuda.current_stream().wait_stream(stream)
            return each
        if not inputs:
            inputs = tuple(tensor.clone() for tensor in batch)
            gc.collect()  # an earlier graph that Python frees during a recording would end it
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = update(*inputs)
        for kept, tensor in zip(inputs, batch, strict=True):
            kept.copy_(tensor)
        graph.replay()
        return output

    return step


def _check_finite(name: str, step: int, losses: Tensor) -> None:
    if not torch.isfinite(losses).all():
        raise FloatingPointError(f"{name}: loss {losses.tolist()} at step {step + 1}; try a lower rate")


def _clip(parameters: list[Tensor], most: float) -> None:
    """Bring the gradient of each seed to at most this norm."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    square = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0)
    factor = (most / square.sqrt().clamp(min=1e-12)).clamp(max=1)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))


def _keep(
    path: Path, step: int, state: Tensors, trained: list[str], optimizer: torch.optim.Optimizer, draw: torch.Generator
) -> None:
    moments = {  # a parameter that the loss does not depend on has none
        f"{which}/{key}": value
        for key in trained
        for which, value in optimizer.state[state[key]].items()
        if which != "step"
    }
    save({**state, **moments, "generator": draw.get_state()}, path, step=str(step))


def _resume(
    path: Path, state: Tensors, trained: list[str], optimizer: torch.optim.Optimizer, draw: torch.Generator
) -> int:
    """Take up what `_keep` left, if anything; returns the number of steps done."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    kept = load_file(path)
    draw.set_state(kept["generator"])
    with torch.no_grad():
        for key, tensor in state.items():
            tensor.copy_(kept[key])
    for key in trained:
        if f"exp_avg/{key}" in kept:
            moments = {which: kept[f"{which}/{key}"].to(state[key].device) for which in ("exp_avg", "exp_avg_sq")}
            where = state[key].device if state[key].is_cuda else None
            optimizer.state[state[key]] = {"step": torch.tensor(float(step), device=where), **moments}
    return step
