"""Runs Gluon kernels for Hopper on a CPU: partitions as threads, barriers with phases, copies and products late.

Triton's interpreter does not know Gluon. This one executes a module's kernels as Python on torch tensors, and is
unkind: which thread goes on, when a copy lands and when a product reads its operands is drawn from a seed, as late as
the barriers allow. Shared memory starts as NaN. So a missing wait shows as a wrong number, a missing arrival as a
`Deadlock` that says who waits for what, and an unfenced write as an error. Speed, registers and bank conflicts it does
not know, nor that registers of a product in flight must not be overwritten.
"""

from __future__ import annotations

import random
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton.experimental.gluon._runtime import GluonJITFunction
from triton.runtime.jit import JITFunction

from benchmarks import gluon_assembly
from benchmarks.gluon_hopper import Hopper
from benchmarks.gluon_machine import Barrier, Descriptor, Memory, Pointer, Scheduler, plain, value

# -- the language -----------------------------------------------------------------------------------------------------


class Language:
    """What kernels know as `gl`, for one launch."""

    float16, bfloat16, float32 = torch.float16, torch.bfloat16, torch.float32
    int32, int64 = torch.int32, torch.int64
    fma = staticmethod(lambda a, b, c: a * b + c)
    exp2, log2 = staticmethod(torch.exp2), staticmethod(torch.log2)
    abs = staticmethod(abs)
    cdiv = staticmethod(lambda a, b: -(-a // b))
    static_range = range
    constexpr = staticmethod(lambda x: x)
    _unwrap_if_constexpr = constexpr
    convert_layout = staticmethod(lambda x, layout: x)
    barrier = thread_barrier = staticmethod(lambda: None)  # a partition is one thread here

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        for layout in (
            "NVMMADistributedLayout",
            "NVMMASharedLayout",
            "SliceLayout",
            "DotOperandLayout",
            "BlockedLayout",
        ):
            setattr(self, layout, lambda *given, **named: None)

    def program_id(self, axis: int) -> int:
        return int(self.launch.local.program[axis])

    def num_programs(self, axis: int) -> int:
        return self.launch.grid[axis]

    def allocate_shared_memory(self, dtype: torch.dtype, shape: Sequence[int], layout: object) -> Memory:
        if dtype == torch.int64:
            return Memory([Barrier() for _ in range(shape[0])], {})
        return Memory(torch.full(tuple(shape), torch.nan, dtype=dtype), self.launch.unfenced)

    def warp_specialize(self, partitions: Sequence[tuple[Any, Any]], warps: object, registers: object) -> None:
        (default, given), *workers = partitions
        ended = [self.launch.spawn(lambda one=one, args=args: one(*args), self.launch.local.program)  # type: ignore[misc]
                 for one, args in workers]  # fmt: skip
        default(*given)
        self.launch.wait(lambda: not any(self.launch.alive[number] for number in ended), "the other partitions")

    def arange(self, start: int, end: int, layout: object = None) -> Tensor:
        return value(torch.arange(start, end, dtype=torch.int32))

    def zeros(self, shape: Sequence[int], dtype: torch.dtype, layout: object = None) -> Tensor:
        return value(torch.zeros(tuple(shape), dtype=dtype))

    def full(self, shape: Sequence[int], number: float, dtype: torch.dtype, layout: object = None) -> Tensor:
        return value(torch.full(tuple(shape), number, dtype=dtype))

    def expand_dims(self, x: Tensor, axis: int) -> Tensor:
        return x.unsqueeze(axis)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return torch.where(condition, a, b) if isinstance(condition, Tensor) else (a if condition else b)

    def minimum(self, a: Any, b: Any) -> Any:
        return a.clamp(max=b) if isinstance(a, Tensor) else min(a, b)

    def maximum(self, a: Any, b: Any) -> Any:
        return a.clamp(min=b) if isinstance(a, Tensor) else max(a, b)

    def min(self, x: Tensor, axis: int) -> Tensor:
        return x.amin(axis)

    def max(self, x: Tensor, axis: int) -> Tensor:
        return x.amax(axis)

    def sum(self, x: Tensor, axis: int) -> Tensor:
        return x.sum(axis)

    def load(self, pointer: Pointer) -> float:
        return pointer.base[pointer.offset].item()

    def store(self, pointers: Pointer, x: Tensor, mask: Tensor) -> None:
        pointers.base[plain(pointers.offset)[plain(mask)]] = plain(x)[plain(mask)].to(pointers.base.dtype)

    def inline_asm_elementwise(
        self, asm: str, constraints: str, args: Sequence[Tensor], dtype: Any, is_pure: bool, pack: int
    ) -> Any:
        several = isinstance(dtype, tuple)
        results = gluon_assembly.run(asm, args, dtype if several else (dtype,), pack)
        return results if several else results[0]


# -- a launch ---------------------------------------------------------------------------------------------------------


class Launch:
    """One grid of programs of one kernel: they start in order, as many at a time as there are processors."""

    def __init__(self, seed: int, processors: int) -> None:
        self.seed, self.processors = seed, processors
        self.local = threading.local()
        self.spaces: dict[int, dict[str, Any]] = {}

    def __call__(self, kernel: Any, grid: tuple[int, ...], given: Sequence[Any], named: dict[str, Any]) -> None:
        self.scheduler, self.grid = Scheduler(random.Random(self.seed)), grid
        self.alive: dict[int, bool] = {}
        self.unfenced: dict[int, int] = {}
        function = _python(kernel.fn, self._space(kernel.fn.__globals__))
        arguments = [_argument(one) for one in given]
        constants = {name: one for name, one in named.items() if name not in ("num_warps", "num_stages")}
        begun, ended = 0, 0

        def run(program: int) -> None:
            nonlocal begun, ended
            self.wait(lambda: program == begun < ended + self.processors, "a processor")
            begun += 1
            function(*arguments, **constants)
            ended += 1

        for program in range(grid[0]):
            self.spawn(lambda program=program: run(program), (program,))  # type: ignore[misc]
        self.scheduler.run()

    def spawn(self, work: Callable[[], None], program: tuple[int, ...]) -> int:
        number = len(self.scheduler.threads)
        self.alive[number] = True

        def run() -> None:
            self.local.number, self.local.program = number, program
            self.local.products, self.local.stores, self.local.landings = [], [], []
            work()
            self.finish(self.local.products, 0)
            self.alive[number] = False

        return self.scheduler.spawn(run)

    def wait(self, ready: Callable[[], bool], why: str) -> None:
        self.scheduler.wait(self.local.number, ready, why)

    def later(self, act: Callable[[], Any], queue: list[Callable[[], None]]) -> None:
        """To happen once, any time until `finish`."""
        done: list[bool] = []

        def once() -> None:
            if not done:
                done.append(True)
                act()

        queue.append(once)
        self.scheduler.pending.append(once)

    def finish(self, queue: list[Callable[[], None]], but: int) -> None:
        while len(queue) > but:
            queue.pop(0)()

    def _space(self, names: dict[str, Any]) -> dict[str, Any]:
        """A module's names, with this interpreter's language in place of Gluon's; functions keep their own modules."""
        if id(names) in self.spaces:
            return self.spaces[id(names)]
        hopper, language = Hopper(self), Language(self)
        space = self.spaces[id(names)] = names | {"gl": language, "mbarrier": hopper, "tma": hopper}
        methods = [name for name in vars(Hopper) if not name.startswith("_") and name in space]
        space |= {name: getattr(hopper, name) for name in methods} | {"thread_barrier": language.thread_barrier}
        for name, one in names.items():
            if name in methods:
                continue
            if isinstance(one, (JITFunction, Interpreted)):
                function = (one.kernel if isinstance(one, Interpreted) else one).fn
                space[name] = _python(function, self._space(function.__globals__))
            elif getattr(one, "__triton_aggregate__", False):
                start = one.hash_attrs[0].fn
                space[name] = _aggregate(_python(start, self._space(start.__globals__)))
            elif type(one).__name__ == "constexpr":
                space[name] = one.value
        return space


def _python(function: Any, space: dict[str, Any]) -> types.FunctionType:
    made = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _aggregate(start: Callable[..., None]) -> Callable[..., Any]:
    def make(*given: Any) -> types.SimpleNamespace:
        made = types.SimpleNamespace()
        start(made, *given)
        return made

    return make


def _argument(one: Any) -> Any:
    """A tensor as a pointer, a descriptor as ours, numbers as they are."""
    if isinstance(one, Tensor):
        return Pointer(one.flatten() if one.is_contiguous() else one)
    if hasattr(one, "block_shape"):
        return Descriptor(torch.as_strided(one.base, one.shape, one.strides), tuple(one.block_shape))
    return one


class Interpreted:
    """In place of a kernel: `kernel[grid](...)` runs here."""

    def __init__(self, kernel: GluonJITFunction[Any], seed: int, processors: int) -> None:
        self.kernel, self.seed, self.processors = kernel, seed, processors

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *given, **named: Launch(self.seed, self.processors)(self.kernel, grid, given, named)


@contextmanager
def interpreted(module: types.ModuleType, *, seed: int = 0, processors: int = 3) -> Iterator[None]:
    """Within it, kernels that functions of this module launch run here, on a GPU of a few multiprocessors."""
    kernels = {name: one for name, one in vars(module).items() if isinstance(one, GluonJITFunction)}
    gpu = types.SimpleNamespace(multi_processor_count=processors)
    try:
        for name, kernel in kernels.items():
            setattr(module, name, Interpreted(kernel, seed, processors))
        with mock.patch("torch.cuda.get_device_properties", return_value=gpu):
            yield
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)
