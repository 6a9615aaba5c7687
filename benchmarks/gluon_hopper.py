"""What kernels import from Gluon's `hopper` and from `kernels.hopper`, on the machine of `gluon_interpreter`."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.gluon_machine import Barrier, Descriptor, Memory, Pointer, Product

if TYPE_CHECKING:
    from benchmarks.gluon_interpreter import Launch


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

    def async_store(self, target: Descriptor, where: Sequence[int], source: Memory, *, add: bool = False) -> None:
        """Reads its source before `store_wait` ends, and may land later."""
        launch, landings = self.launch, self.launch.local.landings
        outside, inside = target.cut(where)

        def read() -> None:
            part = source.read()[inside].clone()
            launch.later(lambda: target.base[outside].add_(part) if add else target.base[outside].copy_(part), landings)

        launch.later(read, launch.local.stores)

    def reduce_add(self, target: Descriptor, where: Sequence[int], source: Memory) -> None:
        self.async_store(target, where, source, add=True)

    def store_wait(self, pendings: int) -> None:
        self.launch.finish(self.launch.local.stores, pendings)

    def await_turn(self, counter: Pointer, turn: int) -> None:
        self.launch.wait(lambda: bool(counter.base[counter.offset] == turn), f"turn {turn} of a counter")

    def end_turn(self, counter: Pointer) -> None:
        self.store_wait(0)
        self.launch.finish(self.launch.local.landings, 0)
        counter.base[counter.offset] += 1
        self.launch.wait(lambda: True, "nothing")

    def warpgroup_mma_init(self, value: Any) -> Any:
        return value

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
