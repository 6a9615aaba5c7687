"""Inline assembly in the interpreter for Gluon: what registers hold, what it does not know, the backward weights."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gluon_assembly import run  # noqa: E402
from benchmarks.kernels.flash_sigmoid_backward_weights import DIVIDED, TIMES, WITH_SLOPE  # noqa: E402
from benchmarks.kernels.sigmoid_forms import PACKED, PACKED_UNIT  # noqa: E402

INF, NAN = math.inf, math.nan


def one(assembly, *arguments, dtype=torch.float32, pack=1):
    (result,) = run(assembly, [torch.tensor(x, dtype=torch.float32) for x in arguments], (dtype,), pack)
    return result.float().tolist()


def test_a_register_holds_a_number_and_its_bits():
    assert one("ex2.approx.ftz.f32 $0, $1;", [3.0, -1.0]) == [8.0, 0.5]
    assert one("add.u32 $0, $1, 0x00800000;", [3.0, 0.5]) == [6.0, 1.0]
    assert one("mul.f32 $0, $1, 0fBF800000;", [3.0, INF]) == [-3.0, -INF]


def test_the_first_of_two_numbers_is_the_lower_half_of_a_register():
    assert one("cvt.rn.bf16x2.f32 $0, $2, $1;", [1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16, pack=2) == [1, 2, 3, 4]
    assert one("cvt.rn.bf16x2.f32 $0, $1, $2;", [1.0, 2.0, 3.0, 4.0], dtype=torch.bfloat16, pack=2) == [2, 1, 4, 3]


def test_numbers_are_rounded_where_they_are_converted():
    near = 1 + 2.0**-9
    assert one("cvt.rn.f16x2.f32 $0, $2, $1;", [near, 1.0], dtype=torch.float16, pack=2) == [near, 1.0]
    assert one("cvt.rn.bf16x2.f32 $0, $2, $1;", [near, 1.0], dtype=torch.bfloat16, pack=2) == [1.0, 1.0]


def test_what_is_no_number_is_as_in_the_manual():
    assert one("mul.sat.f32 $0, $1, $2;", [INF, -1.0, 3.0], [0.0, 2.0, 2.0]) == [0.0, 0.0, 1.0]
    assert one("max.f32 $0, $1, $2;", [NAN, 1.0], [0.0, NAN]) == [0.0, 1.0]
    packed = "{ .reg .b32 x; cvt.rn.bf16x2.f32 x, $2, $1; fma.rn.relu.bf16x2 $0, x, x, x; }"
    low, high = one(packed, [NAN, -0.5], dtype=torch.bfloat16, pack=2)
    assert math.isnan(low)
    assert high == 0.0


@pytest.mark.parametrize("line", ["lg2.approx.f32 $0, $1;", "add.f64 $0, $1, $1;", "@p add.f32 $0, $1, $1;"])
def test_an_instruction_that_it_does_not_know_is_an_error(line):
    with pytest.raises((KeyError, ValueError)):
        one(line, [1.0])


def test_a_name_that_nothing_was_written_to_is_an_error():
    with pytest.raises(ValueError, match="invalid literal"):
        one("add.f32 $0, $1, forgotten;", [1.0])


def weight_and_slope(z, form, dtype, unit):
    p, slope = run(form.value, [-z * math.log2(math.e)], (dtype, dtype), 2)
    return p.double() * unit, slope.double() * unit**2


@pytest.mark.parametrize(
    ("form", "dtype", "unit", "lowest", "errors"),
    [(WITH_SLOPE, torch.bfloat16, PACKED_UNIT.value, -80, (1.2e-2, 2.4e-2)),
     # float16 has eleven bits from 2^-14 on.
     (DIVIDED, torch.float16, 1.0, -9, (2.0**-11, 2.0**-11))],
)  # fmt: skip
def test_the_backward_forms_are_the_sigmoid_and_its_slope(form, dtype, unit, lowest, errors):
    z = torch.linspace(lowest, 6, 12_000)
    p, slope = weight_and_slope(z, form, dtype, unit)
    true = torch.sigmoid(z.double())
    # Beside the one rounding that of x in float32.
    assert float((p / true - 1).abs().max()) <= errors[0] + 1e-5
    assert float((slope / (true * (1 - true)) - 1).abs().max()) <= errors[1] + 1e-5


@pytest.mark.parametrize(("form", "dtype"), [(WITH_SLOPE, torch.bfloat16), (DIVIDED, torch.float16)])
def test_what_is_hidden_has_neither_weight_nor_slope(form, dtype):
    p, slope = weight_and_slope(torch.tensor([-INF, -300.0, -INF, 0.0]), form, dtype, 1.0)
    assert p.tolist()[:3] == slope.tolist()[:3] == [0.0, 0.0, 0.0]
    assert slope[3] > 0


def test_the_backward_weight_is_that_of_the_forward_pass():
    z = torch.linspace(-80, 20, 800)
    x = -z * math.log2(math.e)
    (alone,) = run(PACKED.value, [x], (torch.bfloat16,), 2)
    assert torch.equal(alone, run(WITH_SLOPE.value, [x], (torch.bfloat16, torch.bfloat16), 2)[0])


def test_a_slope_times_a_gradient_is_rounded_twice():
    generator = torch.Generator().manual_seed(0)
    slope, dp = torch.rand(64, generator=generator).bfloat16(), torch.randn(64, generator=generator)
    (found,) = run(TIMES.value, [slope, dp], (torch.bfloat16,), 2)
    assert torch.equal(found, slope * dp.bfloat16())
