"""What the compiler makes of a kernel for a Hopper GPU, found on any machine: registers, spills, instructions.

Triton brings NVIDIA's assembler and disassembler along. A kernel that spills registers, or whose matrix products are
not the asynchronous ones of Hopper, is slow before it is timed: tests look at this where there is no GPU.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

HOPPER = GPUTarget("cuda", 90, 32)
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+ )?([A-Z0-9_.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Compiled:
    """Registers a thread at the start, bytes a thread that are spilled, bytes of shared memory, and instructions.

    instructions counts by name: "HGMMA" are Hopper's matrix products, "MUFU.EX2" special functions, and so on.
    """

    registers: int
    spilled: int
    shared: int
    instructions: Counter[str]

    def count(self, name: str) -> int:
        """Instructions whose name starts with this."""
        return sum(number for one, number in self.instructions.items() if one.startswith(name))


def compiled(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    num_warps: int = 4,
    num_stages: int = 3,
) -> Compiled:
    """Compile a Triton or Gluon kernel.

    Args:
        kernel: of `triton.jit` or `gluon.jit`, imported without TRITON_INTERPRET.
        signature: type of each argument that is no constant, such as "*bf16", "i32", or a `descriptor`; pointers and
            integers count as multiples of 16.
        constants: value of each `constexpr` argument.
    """
    names = list(kernel.arg_names)
    types = {name: "constexpr" if name in constants else signature[name] for name in names}
    source = GluonASTSource if kernel.is_gluon() else ASTSource
    # As a launch finds them where tensors are aligned; without it Triton does not copy asynchronously.
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, kind in types.items()
        if not kernel.is_gluon() and (kind.startswith("*") or kind == "i32")
    }
    made = triton.compile(
        source(kernel, types, {(names.index(name),): value for name, value in constants.items()}, aligned),
        target=HOPPER,
        options={"num_warps": num_warps, "num_stages": num_stages},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, listing = (_run(*command, file.name) for command in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c")))
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    spilled = found["STACK"] + found["LOCAL"]
    return Compiled(found["REG"], spilled, made.metadata.shared, Counter(INSTRUCTION.findall(listing)))


def descriptor(dtype: str, block: tuple[int, ...]) -> str:
    """Type of a TMA descriptor of such blocks, swizzled as wide as a row allows."""
    bits = int(dtype.removeprefix("bf").removeprefix("fp"))
    layout = f"NVMMASharedLayout({min(128, block[-1] * bits // 8)}, {bits}, rank={len(block)})"
    return f"tensordesc<{dtype}{list(block)},{layout}>"


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout
