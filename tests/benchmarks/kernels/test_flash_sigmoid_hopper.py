"""The Hopper kernel without a GPU: its gate in our interpreter for Gluon, and what the compiler makes of it."""

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.flash_sigmoid import Attention, make, plain, reference, tensors  # noqa: E402
from benchmarks.gate import judge  # noqa: E402
from benchmarks.gluon_interpreter import interpreted  # noqa: E402
from benchmarks.kernels import flash_sigmoid_hopper as hopper  # noqa: E402
from tests.benchmarks.apart import run_apart  # noqa: E402

CASES = [
    *(Attention(n, n, causal=causal, dtype="bfloat16") for n in (1, 63, 64, 65, 192, 193) for causal in (False, True)),
    *(Attention(n, m, causal=True, dtype="float16") for n, m in ((64, 300), (300, 64), (1, 200))),
    *(Attention(1100, 260, width=width, causal=causal) for width in (32, 64, 128) for causal in (False, True)),
    Attention(768, 130, dtype="bfloat16"),
    Attention(200, 200, heads=4, key_heads=2, batch=2, width=128, strided=True, causal=True, dtype="bfloat16"),
    Attention(200, 270, heads=4, alibi=True, dtype="bfloat16"),
    Attention(270, 270, heads=2, alibi=True, causal=True, dtype="bfloat16"),
    *(Attention(130, 130, offset=offset, dtype="bfloat16") for offset in (0.0, -math.log(131_072), -200.0, 200.0)),
]

LIST = """
import json, sys
from benchmarks.compiled import compiled, descriptor
from benchmarks.kernels import flash_sigmoid_hopper as hopper

width, dtype, causal, alibi, form, queries = json.loads(sys.argv[1])
size = hopper.size(width, queries, 32, 132, causal)
block = lambda rows: descriptor(dtype, (1, 1, rows, width))
types = {"queries": block(64), "keys": block(size["N"]), "values": block(size["N"]), "outputs": block(64),
         "biases": "*fp32", "slopes": "*fp32", "scale": "fp32",
         **dict.fromkeys(("batch", "query_count", "key_count", "heads", "group"), "i32")}
made = compiled(hopper._forward, types, size | {"FORM": form, "CAUSAL": causal, "ALIBI": alibi, "TOGETHER": 1 + causal})
names = ("HGMMA", "HMMA", "UTMALDG", "WARPGROUP.ARRIVE", "MUFU.EX2", "MUFU.TANH", "MUFU.RCP")
print(json.dumps({"spilled": made.spilled, "shared": made.shared} | {name: made.count(name) for name in names}))
"""


def failures(case, form=None):
    """In the interpreter, by the gate's own measure."""
    inputs = make(case, torch.Generator().manual_seed(0))

    def fast(given):
        assert hopper.supported(*tensors(given)[:3])
        return {"o": hopper.forward(*tensors(given), form=form)}

    with interpreted(hopper):
        judged = judge(case, fast, inputs, reference(inputs), plain(inputs))
    return [one for one in judged if not one.passed]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_it_passes_the_gate_in_the_interpreter(case):
    assert failures(case) == []


@pytest.mark.parametrize("form", ["newton", "divide", "tanh", "newton with row maximum"])
def test_other_forms_of_the_weights_are_the_same_function(form):
    assert failures(Attention(130, 130, causal=True, dtype="bfloat16"), form) == []


def test_a_form_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="no form 'relu' of the weights: give one of packed newton"):
        failures(Attention(65, 65, dtype="bfloat16"), "relu")


def test_the_softmax_twin_is_softmax():
    inputs = make(Attention(300, 300, causal=True, dtype="bfloat16"), torch.Generator().manual_seed(0))
    with interpreted(hopper):
        found = hopper.forward(*tensors(inputs), form="softmax")
    true = torch.nn.functional.scaled_dot_product_attention(*(inputs[name] for name in "qkv"), is_causal=True)
    torch.testing.assert_close(found, true, rtol=2e-2, atol=1e-2)


def look(width, dtype="bf16", causal=False, alibi=False, form="packed newton", queries=4096):
    return json.loads(run_apart(LIST, [width, dtype, causal, alibi, form, queries]))


@pytest.mark.parametrize(
    ("width", "options"),
    [(32, {}), (64, {}), (64, {"queries": 16_384}), (64, {"queries": 16_384, "form": "softmax"}),
     (64, {"causal": True, "alibi": True}), (128, {"causal": True}),
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


@pytest.mark.parametrize(
    ("width", "queries", "heads", "causal", "consumers"),
    [(64, 16_384, 32, False, 3), (64, 8192, 64, False, 3), (64, 4096, 128, False, 4), (64, 1024, 512, False, 4),
     (64, 16_384, 32, True, 4), (64, 1, 1, False, 3), (32, 16_384, 64, False, 4), (128, 16_384, 16, False, 2)],
)  # fmt: skip
def test_tiles_are_of_the_height_that_leaves_processors_least_to_do(width, queries, heads, causal, consumers):
    assert hopper.size(width, queries, heads, 132, causal)["CONSUMERS"] == consumers


def test_a_weight_costs_one_special_function():
    newton, divide = look(64, form="newton"), look(64, form="divide")
    assert divide["MUFU.RCP"] - newton["MUFU.RCP"] == newton["MUFU.EX2"]
    assert divide["MUFU.EX2"] == newton["MUFU.EX2"] == look(64, form="tanh")["MUFU.TANH"]
