"""Forms of the sigmoid: what is refused without a GPU, and the arithmetic of the reciprocal that needs none."""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from benchmarks.gluon_assembly import run  # noqa: E402
from benchmarks.kernels.sigmoid_forms import FORMS, PACKED, PACKED_UNIT, inherited, weights  # noqa: E402
from tests.benchmarks.apart import run_apart  # noqa: E402

COMPILE = """
import json
from benchmarks.compiled import compiled
from benchmarks.kernels.sigmoid_forms import FORMS, _forms

types = {"Z": "*fp32", "Out": "*fp32", "count": "i32"}
made = {form: compiled(_forms, types, {"FORM": form, "BLOCK": 256}) for form in FORMS}
print(json.dumps({form: [one.count("MUFU"), one.spilled] for form, one in made.items()}))
"""


def test_all_but_division_need_one_special_function_a_weight_of_the_two_of_a_thread():
    assert json.loads(run_apart(COMPILE)) == {
        "tanh": [2, 0], "divide": [4, 0], "newton": [2, 0], "packed newton": [2, 0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("z", "form", "message"),
    [
        (torch.zeros(3), "tanh", "z is torch.float32 on cpu: give contiguous float32 on a GPU"),
        (torch.zeros(3), "logistic", "no form 'logistic' of the sigmoid: give one of tanh, divide, newton, packed"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name(z, form, message):
    with pytest.raises(ValueError, match=message):
        weights(z, form)


def newton(n):
    """1 / n for float32 n <= -1, negated, as the kernels compute it: a guess in integers and one step."""
    guess = (np.int32(-0x010CC000) - n.view(np.int32)).view(np.float32)
    return guess * (n.astype(np.float64) * guess + 2.0012942760794594).astype(np.float32)  # fma rounds once


def test_the_step_of_newton_keeps_small_weights_as_well_as_its_bound_says():
    z = np.linspace(-60, 20, 1_000_001, dtype=np.float32)
    n = (-1 - np.exp2(-z.astype(np.float64) * math.log2(math.e))).astype(np.float32)
    true = -1 / n.astype(np.float64)
    assert (abs(newton(n) - true) / true).max() <= 1.3e-3


def packed(z):
    """P by the kernels' own instructions, in the interpreter for them."""
    (p,) = run(PACKED.value, [-z * math.log2(math.e)], [torch.bfloat16], pack=2)
    return p.float() * PACKED_UNIT.value


def test_two_weights_an_instruction_lose_less_than_twice_what_rounding_loses():
    z = torch.linspace(-14, 6, 1_000_000)
    lost = (packed(z).double() / torch.sigmoid(z.double()) - 1).double()
    rounding = torch.sigmoid(z.double()).bfloat16().double() / torch.sigmoid(z.double()) - 1
    assert lost.square().mean() <= 4 * rounding.square().mean()
    assert abs(lost.mean()) <= 1e-4


def test_two_weights_an_instruction_are_zero_under_a_mask_and_never_nan():
    assert torch.equal(packed(torch.full((2,), -math.inf)), torch.zeros(2))
    found = packed(torch.linspace(-400, 400, 1_000_000))
    assert bool(((found >= 0) & (found <= 1.01)).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_sigmoid(form):
    z = torch.linspace(-4, 4, 1000, device="cuda")
    assert float((weights(z, form) - torch.sigmoid(z)).abs().max()) < 2e-3
    assert 0 < inherited(form, 512, samples=1000) < 1
