"""The machine that `gluon_interpreter` runs kernels on: who goes on, barriers, shared memory, products, descriptors."""

from __future__ import annotations

import random
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

SIZES = {torch.float16: 2, torch.bfloat16: 2, torch.float32: 4}


class Deadlock(RuntimeError):
    """No thread can go on and nothing is under way; the message says what each waits for."""


class Unfenced(RuntimeError):
    """A copy or a product reads shared memory that was written without `fence_async_shared` after it."""


# -- who goes on ------------------------------------------------------------------------------------------------------


@dataclass
class Scheduler:
    """One thread runs at a time; at each step that others can see, the next one is drawn."""

    rng: random.Random
    threads: list[threading.Thread] = field(default_factory=list)
    waiting: dict[int, tuple[Callable[[], bool], str]] = field(default_factory=dict)
    pending: list[Callable[[], None]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    turn: int = -1
    changed: threading.Condition = field(default_factory=threading.Condition)

    def spawn(self, work: Callable[[], None]) -> int:
        number = len(self.threads)

        def run() -> None:
            try:
                self._until_turn(number)
                work()
            except BaseException as error:
                self.errors.append(error)
            self.waiting[number] = (lambda: False, "")
            self._next()

        self.waiting[number] = (lambda: True, "its start")
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return number

    def run(self) -> None:
        """Until all threads have ended.

        Raises:
            Deadlock: some cannot.
        """
        self._next()
        for thread in self.threads:  # grows while it is walked through: threads start threads
            thread.join()
        if self.errors:
            raise self.errors[0]
        while self.pending:
            self.pending.pop()()

    def wait(self, number: int, ready: Callable[[], bool], why: str) -> None:
        """Let others go on, and come back when `ready`."""
        self.waiting[number] = (ready, why)
        self._next()
        self._until_turn(number)

    def _next(self) -> None:
        with self.changed:
            self._choose()

    def _choose(self) -> None:
        """Sets whose turn it is; lets what is under way happen now and then, and always where nobody can go on."""
        while not self.errors:
            able = [number for number, (ready, _) in self.waiting.items() if ready()]
            if able and (not self.pending or self.rng.random() < 0.7):
                self.turn = self.rng.choice(able)
                break
            if not self.pending:
                stuck = [f"{number}: {why}" for number, (_, why) in self.waiting.items() if why]
                if stuck:
                    self.errors.append(Deadlock("every thread waits: " + "; ".join(stuck)))
                break
            self.pending.pop(self.rng.randrange(len(self.pending)))()
        self.changed.notify_all()

    def _until_turn(self, number: int) -> None:
        with self.changed:
            while self.turn != number and not self.errors:
                self.changed.wait()
        if self.errors:
            raise SystemExit
        self.waiting[number] = (lambda: False, "")
        self.turn = -1


# -- what they share --------------------------------------------------------------------------------------------------


@dataclass
class Barrier:
    """An mbarrier: a phase ends when `count` arrivals and all expected bytes have come."""

    count: int = 0
    missing: int = 0
    bytes: int = 0
    phase: int = 0

    def arrive(self, number: int = 1) -> None:
        self.missing -= number
        self._end()

    def land(self, size: int) -> None:
        self.bytes -= size
        self._end()

    def _end(self) -> None:
        if self.missing < 0:
            raise RuntimeError("more arrivals at a barrier than its count")
        if self.missing == 0 and self.bytes == 0:
            self.missing, self.phase = self.count, self.phase ^ 1


@dataclass
class Memory:
    """A view of shared memory; `unfenced` has, of all views, the threads that wrote there and have not fenced since."""

    values: Any
    unfenced: dict[int, int]

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    def index(self, i: int) -> Any:
        return self.values[i] if isinstance(self.values, list) else self._view(self.values[i])

    def reshape(self, shape: Sequence[int]) -> Memory:
        return self._view(self.values.view(tuple(shape)))

    def permute(self, order: Sequence[int]) -> Memory:
        return self._view(self.values.permute(tuple(order)))

    def slice(self, start: int, length: int, dim: int = 0) -> Memory:
        return self._view(self.values.narrow(dim, start, length))

    def store(self, value: Tensor) -> None:
        self.values.copy_(plain(value))
        self.unfenced[self.values.data_ptr()] = threading.get_ident()

    def load(self, layout: object) -> Tensor:
        return Value(self.values.clone())

    def read(self) -> Tensor:
        """By a copy or a product.

        Raises:
            Unfenced: a plain write was not fenced.
        """
        if self.values.data_ptr() in self.unfenced:
            raise Unfenced("shared memory is read asynchronously before fence_async_shared")
        return self.values

    def _view(self, values: Tensor) -> Memory:
        return Memory(values, self.unfenced)


class Value(Tensor):
    """A tensor with Gluon's `to`, which can also read the same bits as another dtype."""

    def to(self, dtype: torch.dtype, bitcast: bool = False) -> Tensor:  # type: ignore[override]
        return self.view(dtype) if bitcast else super().to(dtype)


def plain(x: Any) -> Any:
    return x.as_subclass(Tensor) if isinstance(x, Value) else x


@dataclass
class Product:
    """a b + c that happens between its issue and the wait for it; a and b may be `Memory`."""

    a: Any
    b: Memory
    c: Any
    result: Tensor | None = None

    def happen(self) -> Tensor:
        if self.result is None:
            a, b = (plain(x.read() if isinstance(x, Memory) else x).float() for x in (self.a, self.b))
            c = self.c.happen() if isinstance(self.c, Product) else self.c
            self.result = Value(a @ b + (0.0 if c is None else plain(c)))
        return self.result


@dataclass
class Pointer:
    """An address, or a tensor of them: a tensor and how many elements from its start."""

    base: Tensor
    offset: Any = 0

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.base, self.offset + offset)


@dataclass
class Descriptor:
    """Of TMA: blocks of a tensor, zeros beyond its borders."""

    base: Tensor
    block: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def layout(self) -> None:
        return None

    @property
    def block_type(self) -> types.SimpleNamespace:
        size = SIZES[self.base.dtype]
        for extent in self.block:
            size *= extent
        return types.SimpleNamespace(shape=list(self.block), nbytes=size)

    def cut(self, where: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Of a block at these coordinates, what lies within: slices of the tensor, and of the block."""
        inside = [
            (max(0, at), max(max(0, at), min(at + extent, whole)))
            for at, extent, whole in zip(where, self.block, self.base.shape, strict=True)
        ]
        return (
            tuple(slice(low, high) for low, high in inside),
            tuple(slice(low - at, high - at) for (low, high), at in zip(inside, where, strict=True)),
        )


def value(x: Tensor) -> Tensor:
    """x with the methods that kernels call."""
    return x.as_subclass(Value)
