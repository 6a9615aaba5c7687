"""FlashSigmoid: its gate, its operator, and what it refuses."""

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.flash_sigmoid import BENCH, CASES, Attention, cost  # noqa: E402
from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels.flash_sigmoid import flash_sigmoid, reference, runs_here  # noqa: E402
from tests.benchmarks.apart import run_apart  # noqa: E402
from theory.operators.attention import sigmoid  # noqa: E402
from theory.operators.positions import causal  # noqa: E402

SHARED = """
import json
from benchmarks.compiled import compiled
from benchmarks.kernels import flash_sigmoid as kernel

def shared(one, of_keys, width, dtype):
    size = kernel._size(width, 4 if dtype == "fp32" else 2, of_keys)
    options = {name: size.pop(name) for name in ("num_warps", "num_stages")}
    types = {name: "*" + dtype if name in ("Q", "K", "V", "dO", "dK", "dV", "dQ") else "i32" for name in one.arg_names}
    types |= {"biases": "*fp32", "slopes": "*fp32", "scale": "fp32"}
    return compiled(one, types, size | {"CAUSAL": True, "ALIBI": True}, **options).shared

print(json.dumps([shared(kernel._backward_keys, True, 128, "bf16"), shared(kernel._backward_keys, True, 256, "fp32")]))
"""


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(draw(1, 1, 4, 16))
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 4 * len(CASES)
    assert min(judged.refused.values()) > 0


def test_blocks_fit_into_the_shared_memory_of_a_hopper_gpu():
    assert all(0 < one <= 227 * 1024 for one in json.loads(run_apart(SHARED)))


def test_the_operator_is_the_one_of_theory():
    q, k, v = (draw(2, 3, 40, 16, seed=seed) for seed in range(3))
    weights = sigmoid(q, k, mask=torch.from_numpy(causal(40)).to(DEVICE))
    torch.testing.assert_close(flash_sigmoid(q, k, v, causal=True), weights @ v, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_plain_code():
    q, k, v = (draw(1, 2, 33, 16, seed=seed).requires_grad_() for seed in range(3))
    bias = torch.full((2,), -math.log(33), device=DEVICE)
    found = torch.autograd.grad(flash_sigmoid(q, k, v).sum(), (q, k, v))
    expected = torch.autograd.grad(reference(q, k, v, bias, None, False, 0.25).sum(), (q, k, v))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slopes", [None, torch.tensor([0.5, 0.25])])
def test_the_operator_keeps_the_contract_of_custom_operators(slopes):
    q, k, v = (draw(1, 2, 20, 16, seed=seed).requires_grad_() for seed in range(3))
    slopes = None if slopes is None else slopes.to(DEVICE)
    bias = torch.zeros(2, device=DEVICE)
    report = torch.library.opcheck(torch.ops.attest.flash_sigmoid, (q, k, v, bias, slopes, True, 0.25))
    assert set(report.values()) == {"SUCCESS"}


def test_what_the_kernel_cannot_do_is_done_slowly():
    q, k, v = (draw(1, 1, 5, 300, seed=seed).requires_grad_() for seed in range(3))
    assert not runs_here(q)
    bias = torch.full((1,), -math.log(5), device=DEVICE)
    torch.testing.assert_close(flash_sigmoid(q, k, v), reference(q, k, v, bias, None, False, 300**-0.5))
    doubles = [x.detach().double().requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(lambda *given: flash_sigmoid(*given, causal=True), [x[..., :3] for x in doubles])


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_attend_to_gives_zeros(queries, keys):
    q, k, v = draw(1, 2, queries, 16), draw(1, 2, keys, 16), draw(1, 2, keys, 16)
    assert torch.equal(flash_sigmoid(q, k, v), torch.zeros(1, 2, queries, 16, device=DEVICE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": draw(2, 4, 16)}, r"give \(batch, heads, length, width\)"),
        ({"k": draw(1, 4, 9, 8)}, "differ in batch, keys or width"),
        ({"v": draw(1, 4, 8, 16)}, "differ in batch, keys or width"),
        ({"k": draw(1, 3, 9, 16), "v": draw(1, 3, 9, 16)}, "one must divide the other"),
        ({"v": draw(1, 4, 9, 16, dtype=torch.float16)}, "bring them together"),
        ({name: torch.ones(1, 4, 9, 16, dtype=torch.int32, device=DEVICE) for name in "qkv"}, "give bfloat16"),
        ({"bias": torch.zeros(3, device=DEVICE)}, "give a number a head"),
        ({"slopes": torch.zeros(4, dtype=torch.float64, device=DEVICE)}, "give a number a head, float32"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    given = {"q": draw(1, 4, 9, 16), "k": draw(1, 4, 9, 16), "v": draw(1, 4, 9, 16)} | change
    with pytest.raises(ValueError, match=message):
        flash_sigmoid(**given)


def test_the_cost_is_that_of_the_flash_attention_protocol():
    case = Attention(1024, 1024, width=64, batch=16, heads=32, key_heads=32, dtype="bfloat16")
    assert cost(case).flops == 4 * 16 * 32 * 1024**2 * 64
    half = Attention(
        1024, 1024, width=64, batch=16, heads=32, key_heads=32, dtype="bfloat16", causal=True, backward=True
    )
    assert cost(half).flops == cost(case).flops / 2 * 2.5
    assert cost(case).bytes == 4 * 16 * 32 * 1024 * 64 * 2
