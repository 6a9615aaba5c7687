"""Inline assembly (PTX) of Gluon kernels on torch tensors, for `gluon_interpreter`: arithmetic, one line after another.

A register holds 32 bits an element, as int32; each instruction says what they mean. Operations that are approximate on
a GPU are exact here, and subnormal numbers stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gluon_machine import plain, value

MEANINGS = {"f32": torch.float32, "bf16x2": torch.bfloat16, "f16x2": torch.float16,
            "b32": torch.int32, "u32": torch.int32, "s32": torch.int32}  # fmt: skip
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "ex2.approx.ftz": torch.exp2,
    "tanh.approx": torch.tanh,
    "rcp.approx.ftz": torch.reciprocal,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "mul.sat": lambda a, b: (a * b).nan_to_num(nan=0.0).clamp(0, 1),
    "fma.rn": lambda a, b, c: (a.float() * b.float() + c.float()).to(a.dtype),
    "fma.rn.relu": lambda a, b, c: (a.float() * b.float() + c.float()).clamp(min=0).to(a.dtype),
    "max": torch.fmax,
    "mov": lambda a: a,
}


def run(assembly: str, arguments: Sequence[Tensor], dtypes: Sequence[torch.dtype], pack: int) -> tuple[Tensor, ...]:
    """Results of inline assembly; of tensors with 16 bits, too, a register holds two elements.

    Args:
        assembly: instructions of `OPERATIONS`, or that round two numbers, with or without braces around them.
        dtypes: of the results; those of 16 bits come two in a register.
        pack: how many elements, neighbours on the last axis, are handled together.
    """
    counts = [pack * dtype.itemsize // 4 for dtype in dtypes]
    registers, at = {}, sum(counts)
    for x in map(plain, arguments):
        width = 4 // x.dtype.itemsize
        for j in range(0, pack, width):
            pair = torch.stack([x[..., j + i :: pack] for i in range(width)], -1)
            registers[f"${at}"] = pair.view(torch.int32).squeeze(-1)
            at += 1
    for line in re.sub(r"[{}]", "", assembly).split(";"):
        name, *operands = re.findall(r"[^\s,]+", line) or [".reg"]
        if name != ".reg":
            registers[operands[0]] = _instruction(name, [_read(one, registers) for one in operands[1:]])
    results, at = [], 0
    for dtype, count in zip(dtypes, counts, strict=True):
        parts = [registers[f"${at + i}"].unsqueeze(-1).view(dtype) for i in range(count)]
        results.append(value(torch.cat(parts, -1).flatten(-2)))
        at += count
    return tuple(results)


def _instruction(name: str, operands: list[Tensor]) -> Tensor:
    operation, meaning = name.rsplit(".", 1)
    if operation.startswith("cvt.rn."):
        high, low = (one.view(torch.float32) for one in operands)
        return torch.stack((low, high), -1).to(MEANINGS[operation[7:]]).view(torch.int32).squeeze(-1)
    dtype = MEANINGS[meaning]
    if dtype.itemsize == 4:
        return OPERATIONS[operation](*(one.view(dtype) for one in operands)).view(torch.int32)
    return OPERATIONS[operation](*(one.unsqueeze(-1).view(dtype) for one in operands)).view(torch.int32).squeeze(-1)


def _read(operand: str, registers: dict[str, Any]) -> Tensor:
    if operand in registers:
        return registers[operand]
    bits = int(operand[2:], 16) if operand.startswith("0f") else int(operand, 0)
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32)
