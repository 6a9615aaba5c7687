"""The kernels of sparse-linear attention as the compiler makes them for Hopper, without a GPU."""

import json

import pytest

from tests.benchmarks.apart import run_apart

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

LIST = """
import json
from benchmarks.compiled import compiled, descriptor
from benchmarks.kernels import sla, sla_blocks, sla_hopper

types = {**dict.fromkeys(("lists", "counts"), "*i32"), **dict.fromkeys(("Lse", "Delta"), "*fp32"), "scale": "fp32",
         **dict.fromkeys(("states", "H", "dH", "G"), "*bf16"),
         **dict.fromkeys(("queries", "keys", "heads", "key_blocks", "query_blocks", "state_rows", "blocks"), "i32")}
found = {}


def keep(name, made):
    found[name] = {"spilled": made.spilled, "shared": made.shared} | {
        one: made.count(one) for one in ("HGMMA", "HMMA", "UTMALDG", "WARPGROUP.ARRIVE")}


for name, options, rows in (("key_states", sla.STATES, 64), ("branch", sla.BRANCH, 128), ("forward", sla.FORWARD, 128),
                            ("backward_queries", sla.QUERIES, 128), ("backward_keys", sla.KEYS, sla.STEP)):
    kernel = getattr(sla_blocks, name)
    known = {"D": 128, "M": 128, "N": 64, "STEP": rows, "LINEAR": True, "FEATURES": "softmax", "RAGGED": 0} | options
    known = {one: value for one, value in known.items() if one in kernel.arg_names}
    tiles = {one: f"tensordesc<bf16[1, 1, {64 if one in ('K', 'V', 'dK', 'dV') else rows}, 128]>"
             for one in kernel.arg_names if one not in types and one not in known}
    keep(name, compiled(kernel, types | tiles, known, num_warps=options["num_warps"]))
tiles = dict.fromkeys(("queries", "keys", "values", "outputs"), descriptor("bf16", (1, 1, 64, 128)))
counts = dict.fromkeys(("query_count", "key_count", "heads", "tiles", "query_blocks", "key_blocks"), "i32")
known = {"N": 64, "D": 128, "STAGES": 4, "RAGGED": False}
types = {"lists": "*i32", "counts": "*i32", "lses": "*fp32", "scale": "fp32"}
keep("sparse_forward", compiled(sla_hopper.sparse_forward, types | tiles | counts, known))
print(json.dumps(found))
"""

KERNELS = ["key_states", "branch", "forward", "backward_keys", "sparse_forward"]


@pytest.fixture(scope="module")
def found():
    return json.loads(run_apart(LIST))


@pytest.mark.parametrize("kernel", [*KERNELS, "backward_queries"])
def test_products_are_asynchronous_and_tiles_come_by_the_copy_engine(found, kernel):
    made = found[kernel]
    assert made["HGMMA"] > 0
    assert made["HMMA"] == 0
    assert made["UTMALDG"] > 0
    assert made["shared"] <= 227 * 1024
    # One for each group of products: the assembler would put more between products that it cannot overlap.
    assert made["WARPGROUP.ARRIVE"] <= made["HGMMA"] / 4


@pytest.mark.parametrize("kernel", KERNELS)
def test_registers_suffice(found, kernel):
    assert found[kernel]["spilled"] == 0


def test_two_programs_of_the_kernel_of_keys_share_a_multiprocessor(found):
    assert 2 * (found["backward_keys"]["shared"] + 1024) <= 228 * 1024
