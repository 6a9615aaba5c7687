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

from benchmarks.gluon_machine import Barrier, Descriptor, Memory, Pointer, Product, Scheduler, plain, value

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

    def inline_asm_elementwise(self, asm: str, constraints: str, args: Sequence[Tensor], **how: object) -> Tensor:
        return ASSEMBLY[asm.split()[0]](*args)


ASSEMBLY: dict[str, Callable[..., Tensor]] = {
    "ex2.approx.ftz.f32": torch.exp2,
    "tanh.approx.f32": torch.tanh,
    "rcp.approx.ftz.f32": torch.reciprocal,
    "mul.sat.f32": lambda a, b: (a * b).nan_to_num(nan=0.0).clamp(0, 1),
}


class Hopper:
    """Barriers, copies and products, as kernels import them from Gluon's `hopper`."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch

    def init(self, barrier: Barrier, count: int) -> None:
        barrier.count = barrier.missing = count

    def expect(self, barrier: Barrier, size: int, pred: bool = True) -> None:
        if pred:
            barrier.bytes += size
            barrier.arrive()

    def arrive(self, barrier: Barrier, *, count: int = 1, pred: bool = True) -> None:
        if pred:
            barrier.arrive(count)
            self.launch.wait(lambda: True, "nothing")

    def wait(self, barrier: Barrier, phase: int, pred: bool = True) -> None:
        if pred:
            self.launch.wait(
                lambda: barrier.phase != phase, f"phase {phase} of a barrier that misses {barrier.missing}"
            )

    def MBarrierLayout(self) -> None:  # noqa: N802  the name in Gluon
        return None

    def fence_async_shared(self) -> None:
        for place in [place for place, thread in self.launch.unfenced.items() if thread == threading.get_ident()]:
            del self.launch.unfenced[place]

    def async_load(self, source: Descriptor, where: Sequence[int], barrier: Barrier, target: Memory) -> None:
        def land() -> None:
            outside, inside = source.cut(where)
            target.values.zero_()
            target.values[inside] = source.base[outside]
            barrier.land(source.block_type.nbytes)

        self.launch.scheduler.pending.append(land)

    def async_store(self, target: Descriptor, where: Sequence[int], source: Memory) -> None:
        def land() -> None:
            outside, inside = target.cut(where)
            target.base[outside] = source.read()[inside]

        self.launch.later(land, self.launch.local.stores)

    def store_wait(self, pendings: int) -> None:
        self.launch.finish(self.launch.local.stores, pendings)

    def warpgroup_mma(self, a: Any, b: Memory, acc: Any, *, use_acc: bool = True, is_async: bool = False) -> Any:
        product = Product(a, b, acc if use_acc else None)
        if not is_async:
            return product.happen()
        self.launch.later(product.happen, self.launch.local.products)
        return product

    def warpgroup_mma_wait(self, num_outstanding: int = 0, deps: Sequence[Any] = ()) -> Any:
        self.launch.finish(self.launch.local.products, num_outstanding)
        results = []
        for one in deps:
            if isinstance(one, Product) and one.result is None:
                raise RuntimeError("a product is read while it may still be under way")
            results.append(one.result if isinstance(one, Product) else one)
        return results[0] if len(results) == 1 else tuple(results)


# -- a launch ---------------------------------------------------------------------------------------------------------


class Launch:
    """One grid of programs of one kernel."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.local = threading.local()
        self.spaces: dict[int, dict[str, Any]] = {}

    def __call__(self, kernel: Any, grid: tuple[int, ...], given: Sequence[Any], named: dict[str, Any]) -> None:
        self.scheduler, self.grid = Scheduler(random.Random(self.seed)), grid
        self.alive: dict[int, bool] = {}
        self.unfenced: dict[int, int] = {}
        function = _python(kernel.fn, self._space(kernel.fn.__globals__))
        arguments = [_argument(one) for one in given]
        constants = {name: one for name, one in named.items() if name not in ("num_warps", "num_stages")}
        for program in range(grid[0]):
            self.spawn(lambda: function(*arguments, **constants), (program,))
        self.scheduler.run()

    def spawn(self, work: Callable[[], None], program: tuple[int, ...]) -> int:
        number = len(self.scheduler.threads)
        self.alive[number] = True

        def run() -> None:
            self.local.number, self.local.program = number, program
            self.local.products, self.local.stores = [], []
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

    def __init__(self, kernel: GluonJITFunction[Any], seed: int) -> None:
        self.kernel, self.seed = kernel, seed

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *given, **named: Launch(self.seed)(self.kernel, grid, given, named)


@contextmanager
def interpreted(module: types.ModuleType, *, seed: int = 0, processors: int = 3) -> Iterator[None]:
    """Within it, kernels that functions of this module launch run here, on a GPU of a few multiprocessors."""
    kernels = {name: one for name, one in vars(module).items() if isinstance(one, GluonJITFunction)}
    gpu = types.SimpleNamespace(multi_processor_count=processors)
    try:
        for name, kernel in kernels.items():
            setattr(module, name, Interpreted(kernel, seed))
        with mock.patch("torch.cuda.get_device_properties", return_value=gpu):
            yield
    finally:
        for name, kernel in kernels.items():
            setattr(module, name, kernel)
