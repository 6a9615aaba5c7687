"""The Hopper kernel without a GPU: it compiles, keeps its registers, and uses what Hopper has. Its gate needs a GPU."""

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

LIST = """
import json, sys
from benchmarks.compiled import compiled, descriptor
from benchmarks.kernels import flash_sigmoid_hopper as hopper

width, dtype, causal, alibi, form = json.loads(sys.argv[1])
size = hopper.size(width, 4096, alibi)
block = lambda rows: descriptor(dtype, (1, 1, rows, width))
types = {"queries": block(64), "keys": block(size["N"]), "values": block(size["N"]), "outputs": block(64),
         "biases": "*fp32", "slopes": "*fp32", "scale": "fp32",
         **dict.fromkeys(("batch", "query_count", "key_count", "heads", "group"), "i32")}
made = compiled(hopper._forward, types, size | {"FORM": form, "CAUSAL": causal, "ALIBI": alibi, "TOGETHER": 1 + causal})
names = ("HGMMA", "HMMA", "UTMALDG", "WARPGROUP.ARRIVE", "MUFU.EX2", "MUFU.TANH", "MUFU.RCP")
print(json.dumps({"spilled": made.spilled, "shared": made.shared} | {name: made.count(name) for name in names}))
"""


def look(width, dtype="bf16", causal=False, alibi=False, form="newton"):
    """In a process of its own: here kernels are loaded for the interpreter."""
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    arguments = [sys.executable, "-c", LIST, json.dumps([width, dtype, causal, alibi, form])]
    done = subprocess.run(arguments, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("width", "options"),
    [(32, {}), (64, {}), (64, {"causal": True}), (64, {"causal": True, "alibi": True}), (128, {"causal": True}),
     (128, {"dtype": "fp16", "form": "newton twice", "causal": True}), (128, {"form": "softmax"})],
)  # fmt: skip
def test_it_keeps_its_registers_and_multiplies_asynchronously(width, options):
    found = look(width, **options)
    assert found["spilled"] == 0
    assert found["shared"] <= 227 * 1024
    assert found["HGMMA"] > 0
    assert found["HMMA"] == 0
    assert found["UTMALDG"] > 0
    # One for each group of products: the assembler would put more between products that it cannot overlap.
    assert found["WARPGROUP.ARRIVE"] <= found["HGMMA"] / 2


def test_a_weight_costs_one_special_function():
    newton, divide = look(64), look(64, form="divide")
    assert divide["MUFU.RCP"] - newton["MUFU.RCP"] == newton["MUFU.EX2"]
    assert divide["MUFU.EX2"] == newton["MUFU.EX2"] == look(64, form="tanh")["MUFU.TANH"]
