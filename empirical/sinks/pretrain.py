"""Pre-training at the size of Gu et al., arXiv:2410.10781: 60 million parameters without embeddings, for a GPU.

    python -m empirical.sinks.pretrain softmax gate --corpus FOLDER --steps 2000

trains the variants one after the other, prints loss, sinks, tokens per second and model FLOPs utilisation, and keeps
what it trained in the cache (`empirical.artefacts`); an interrupted run goes on where it stopped. bf16 with float32
parameters, blocks compiled, SDPA where the operator is softmax. A model takes some minutes on an H100; on a
CPU, days.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from empirical.artefacts import Tensors, artefact, save
from empirical.sinks.corpus import Corpus, tokenised
from empirical.sinks.inside import Inside, look_inside
from empirical.sinks.pretrain_model import Setting, flops_per_token
from empirical.sinks.variants import VARIANTS
from empirical.training import device
from empirical.transformer import Decoder

log = logging.getLogger("attest.training")
PEAK = {"NVIDIA H100 80GB HBM3": 989.4e12, "NVIDIA H200": 989.4e12}
"""Dense bf16 FLOP/s by the vendor's datasheet, for model FLOPs utilisation."""
SHOWN, SHOWN_LENGTH = 100, 64
"""Sequences and their length on which sinks are measured: those of the paper."""
TEST_ROWS = 64
"""Excerpts of test text whose loss is measured along the training."""
KEEP_EVERY = 60.0
"""Seconds between two saved states."""
UNTIMED = 20
"""Steps at the start that are left out of the speed: they compile."""


# -- what is kept ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pretrained:
    """A trained model, and what was measured on the way: `losses` and each field of `inside` have a row for each step.

    losses are of test text, nats a token; inside is that of `empirical.sinks.inside`, on test text as well.
    """

    setting: Setting
    model: Decoder
    steps: Tensor
    losses: Tensor
    inside: Inside
    tokens_per_second: float
    utilisation: float


def pretrained(setting: Setting, corpus: Corpus, seed: int) -> Pretrained:
    """Train a model, or take it from the cache; on the GPU if there is one.

    Raises:
        FloatingPointError: the loss was not finite.
    """
    config = {**asdict(setting), "corpus": corpus.fingerprint, "seed": seed, "device": device().type}
    made = artefact(f"pretrained-{setting.variant}", __file__, config, partial(_train, setting, corpus, seed))
    with torch.random.fork_rng(devices=[]):
        model = setting.build(corpus.vocabulary)
    model.load_state_dict(_part(made, "model."), assign=True)
    speed, utilisation = made["speed"].tolist()
    return Pretrained(
        setting, model.to(device()), made["steps"], made["losses"], Inside(**_part(made, "inside.")), speed, utilisation
    )


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# -- training ----------------------------------------------------------------------------------------------------------


def logged(steps: int) -> list[int]:
    """After how many steps a model is looked into: 0, then some forty times, more often early, and at the end."""
    return sorted({round(steps * (i / 40) ** 1.5) for i in range(41)})


def batch(text: Tensor, setting: Setting, seed: int, step: int, rows: int | None = None) -> Tensor:
    """(rows, length + 1) int64 excerpts of a text (count,); the same for the same seed and step.

    Raises:
        ValueError: the text is shorter than one excerpt.
    """
    if len(text) <= setting.length + 1:
        raise ValueError(f"a text of {len(text)} tokens has no excerpt of {setting.length + 1}: give a longer one")
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    starts = torch.randint(len(text) - setting.length - 1, (rows or setting.batch, 1), generator=generator)
    tokens = text[starts.to(text.device) + torch.arange(setting.length + 1, device=text.device)].long()
    if setting.fixed is not None:
        tokens[:, setting.fixed] = 0
    return tokens


def rate_at(step: int, setting: Setting) -> float:
    """Learning rate of a step: a linear warm-up over 100 steps, then constant, as in the released configurations."""
    return setting.rate * min(1.0, (step + 1) / 100)


def loss_of(residual: Callable[[Tensor], Tensor], head: Callable[[Tensor, Tensor], Tensor], tokens: Tensor) -> Tensor:
    """Mean loss of the next token, nats; in bfloat16 on a GPU."""
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
        return head(residual(tokens[:, :-1]), tokens[:, 1:])


def head_of(model: Decoder) -> Callable[[Tensor, Tensor], Tensor]:
    """(residual, targets) to the mean loss."""

    def loss(residual: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model.logits(residual).flatten(0, 1).float(), targets.flatten())

    return loss


def _train(setting: Setting, corpus: Corpus, seed: int, unfinished: Path) -> Tensors:
    where = device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = setting.build(corpus.vocabulary).to(where)
    shown = copy.deepcopy(model)
    shown.load_state_dict(model.state_dict(), assign=True)  # the same parameters, never compiled
    train, test = corpus.train[: setting.tokens].to(where), corpus.test.to(where)
    optimizer = torch.optim.AdamW(
        model.parameters(), setting.rate, (0.9, 0.95), weight_decay=setting.weight_decay, fused=where.type == "cuda"
    )
    loss = _compiled(model) if where.type == "cuda" else partial(loss_of, model.residual, head_of(model))
    rows = _resume(unfinished, model, optimizer)
    steps = logged(setting.steps)[len(rows) :]
    seconds, timed, kept = 0.0, 0, time.monotonic()
    for step, until in zip(steps, [*steps[1:], setting.steps], strict=True):
        rows.append(_row(step, shown, setting, test))
        _say(setting, rows[-1])
        began = _now(where)
        for now in range(step, until):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(now, setting)
            loss(batch(train, setting, seed, now)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step >= steps[0] + UNTIMED:
            seconds, timed = seconds + _now(where) - began, timed + until - step
        if time.monotonic() - kept > KEEP_EVERY:
            _keep(unfinished, rows, model, optimizer)
            kept = time.monotonic()
    speed = timed * setting.batch * setting.length / seconds if timed else math.nan
    peak = PEAK.get(torch.cuda.get_device_name(), math.nan) if where.type == "cuda" else math.nan
    speeds = torch.tensor([speed, speed * flops_per_token(setting, corpus.vocabulary) / peak], dtype=torch.float64)
    stacked = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return {**{f"model.{name}": value.cpu() for name, value in model.state_dict().items()}, **stacked, "speed": speeds}


def _compiled(model: Decoder) -> Callable[[Tensor], Tensor]:
    """The loss, with the head and each block compiled by itself, so that the blocks share one compilation.

    The residual stream is bfloat16: half of what the narrow model moves through memory.
    """
    for harmless in ("Dynamo detected a call to a `functools.lru_cache`", "Mismatch dtype between input and weight"):
        # array_api_compat's cache of namespaces never changes; norms have float32 gains, which Inductor handles itself
        warnings.filterwarnings("ignore", message=harmless, category=UserWarning)
    model.token.register_forward_hook(lambda module, inputs, output: output.bfloat16())
    for block in model.blocks:
        block.compile()
    return partial(loss_of, model.residual, torch.compile(head_of(model)))


def _now(where: torch.device) -> float:
    """Seconds, after all that was asked of the GPU."""
    if where.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


@torch.no_grad()
def _row(step: int, model: Decoder, setting: Setting, test: Tensor) -> Tensors:
    """What is kept of a moment of the training."""
    loss = loss_on(model, setting, test)
    if not torch.isfinite(loss):
        raise FloatingPointError(f"{setting.variant}: test loss {loss.item()} after {step} steps; try a lower rate")
    inside = look_inside(model, shown_tokens(test, setting))
    found = {f"inside.{field.name}": getattr(inside, field.name) for field in fields(Inside)}
    return {"steps": torch.tensor(step), "losses": loss.cpu(), **found}


@torch.no_grad()
def loss_on(model: Decoder, setting: Setting, text: Tensor) -> Tensor:
    """Mean loss of a model on the same excerpts of a text (count,) each time, nats a token; on the text's device."""
    parts = batch(text, setting, 0, 0, TEST_ROWS).split(16)
    return torch.stack([loss_of(model.residual, head_of(model), part) for part in parts]).mean()


def shown_tokens(text: Tensor, setting: Setting) -> Tensor:
    """(100, 64): the excerpts on which the inside is measured."""
    return batch(text, replace(setting, length=SHOWN_LENGTH), 1, 0, SHOWN)[:, :-1]


def _say(setting: Setting, row: Tensors) -> None:
    sinks = 100 * row["inside.sinks"][..., setting.fixed or 0].mean()
    star, largest = 100 * row["inside.star"].mean(), row["inside.largest"].max()
    log.info(
        "%s: step %d of %d, test loss %.3f, sinks %.1f %%, on k* %.1f %%, largest %.0f, kurtosis %.0f",
        setting.variant, row["steps"], setting.steps, row["losses"], sinks, star, largest,
        row["inside.kurtosis"].max(),
    )  # fmt: skip


def _keep(path: Path, rows: list[Tensors], model: Decoder, optimizer: torch.optim.Optimizer) -> None:
    moments = {
        f"optimizer.{i}.{name}": value
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    stacked = {f"rows.{name}": torch.stack([row[name] for row in rows]) for name in rows[0]}
    save({**{f"model.{name}": value for name, value in model.state_dict().items()}, **moments, **stacked}, path)


def _resume(path: Path, model: Decoder, optimizer: torch.optim.Optimizer) -> list[Tensors]:
    """Take up what `_keep` left, if anything; returns the rows measured so far."""
    if not path.is_file():
        return []
    kept = load_file(path)
    model.load_state_dict(_part(kept, "model."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _part(kept, "optimizer.").items():
        index, moment = name.split(".")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    stacked = _part(kept, "rows.")
    return [{name: value[i] for name, value in stacked.items()} for i in range(len(stacked["steps"]))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser("python -m empirical.sinks.pretrain", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("variants", nargs="+", choices=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--corpus", type=Path, metavar="PATH", help="text file or folder; default: what is installed")
    parser.add_argument("--seed", type=int, default=0)
    for name, kind in (("steps", int), ("rate", float), ("weight_decay", float), ("fixed", int), ("tokens", int)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=getattr(Setting, name))
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    variants, path, seed = options.pop("variants"), options.pop("corpus"), options.pop("seed")
    try:
        corpus = tokenised(path)
        for variant in variants:
            done = pretrained(Setting(variant, **options), corpus, seed)
            print(f"{variant}: test loss {done.losses[-1]:.4f}, {done.tokens_per_second:,.0f} tokens per second, "
                  f"utilisation {done.utilisation:.1%}", flush=True)  # fmt: skip
    except (FileNotFoundError, ImportError, FloatingPointError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
