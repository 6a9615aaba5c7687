"""Timing on a GPU: contenders take turns on fresh inputs with a cold cache, and a ratio comes with its interval.

One round runs every contender once, A B A B ..., each on the next of several input sets and after the L2 cache was
flushed; CUDA events take the time. A ratio is of the two times of one round, so that a drift of the clock cancels; its
interval is a bootstrap of the median over rounds. The same contender twice must tie, one that does everything twice
must be seen as slower, and an input that comes every time must take as long as when it comes by turns: `trustworthy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from benchmarks.operation import Function, Inputs
from benchmarks.ratios import Timed, ratio

FLUSH = 256 * 2**20
"""Bytes written between two timed calls: five times the largest L2 here."""
WARM, ROUNDS = 0.2, 60
"""Seconds of warm-up for each contender, and timed rounds."""


def time_all(contenders: Mapping[str, Function], inputs: Sequence[Inputs], rounds: int = ROUNDS) -> dict[str, Timed]:
    """Time contenders against one another on a GPU.

    Args:
        contenders: name to function.
        inputs: two sets or more of the same case.
    """
    flush = torch.empty(FLUSH, dtype=torch.int8, device="cuda")
    for function in contenders.values():
        warm_up(lambda function=function: function(inputs[0]))  # type: ignore[misc]
    events = {name: [_pair() for _ in range(rounds)] for name in contenders}
    for turn in range(rounds):
        order = list(contenders)[:: 1 if turn % 2 else -1]
        for name in order:
            start, end = events[name][turn]
            flush.zero_()
            start.record()
            contenders[name](inputs[turn % len(inputs)])
            end.record()
    torch.cuda.synchronize()
    return {name: Timed(np.array([start.elapsed_time(end) for start, end in events[name]])) for name in contenders}


def warm_up(call: Callable[[], object], seconds: float = WARM) -> None:
    """Call until the time is over, at least three times: compilation, clocks and allocator settle."""
    import time

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        call()
        torch.cuda.synchronize()


def trustworthy(function: Function, inputs: Sequence[Inputs]) -> list[str]:
    """What speaks against this clock.

    Nothing if a contender ties with itself, loses against itself done once, and remembers nothing of an input.
    """

    def twice(given: Inputs) -> dict[str, torch.Tensor]:
        function(given)
        return function(given)

    def first(_: Inputs) -> dict[str, torch.Tensor]:
        return function(inputs[0])

    timed = time_all({"A": function, "A again": function, "A twice": twice, "A on the first": first}, inputs)
    tie, double = ratio(timed["A again"], timed["A"]), ratio(timed["A twice"], timed["A"])
    found = []
    if not tie.low <= 1.02 or not tie.high >= 0.98:
        found.append(f"the same kernel twice does not tie: {tie.median:.3f} [{tie.low:.3f}, {tie.high:.3f}]")
    if double.low < 1.3:
        found.append(f"twice the work is not seen as slower: {double.median:.3f} [{double.low:.3f}, {double.high:.3f}]")
    # Rounds in which both had the first input: how long a call takes may depend on its data.
    fresh, repeated = (Timed(timed[name].rounds[:: len(inputs)]) for name in ("A", "A on the first"))
    remembered = ratio(fresh, repeated)
    if remembered.low > 1.02:
        found.append("an input that comes every time takes less time than by turns: "
                     f"{remembered.median:.3f} [{remembered.low:.3f}, {remembered.high:.3f}]")  # fmt: skip
    return found


def _pair() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
