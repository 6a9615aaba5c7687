"""The Hopper kernel's backward pass without a GPU: its gate in our interpreter, the order of its sums, its assembly."""

import json
import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.flash_sigmoid import Attention, make, plain, reference, tensors  # noqa: E402
from benchmarks.gate import judge, poisoned  # noqa: E402
from benchmarks.gluon_hopper import Hopper  # noqa: E402
from benchmarks.gluon_interpreter import interpreted  # noqa: E402
from benchmarks.gluon_machine import Deadlock, Unfenced  # noqa: E402
from benchmarks.kernels import flash_sigmoid  # noqa: E402
from benchmarks.kernels import flash_sigmoid_hopper_backward as hopper  # noqa: E402
from benchmarks.kernels.hopper import ROWS  # noqa: E402
from benchmarks.sdpa import named  # noqa: E402
from tests.benchmarks.apart import run_apart  # noqa: E402


def attention(queries, keys, **options):
    return Attention(queries, keys, **{"dtype": "bfloat16", "backward": True} | options)


CASES = [
    *(attention(n, n, causal=causal) for n in (1, 63, 64, 65, 129, 192) for causal in (False, True)),
    *(attention(n, m, width=width, causal=True) for n, m in ((130, 400), (400, 130), (1, 200)) for width in (64, 128)),
    *(attention(300, 260, width=width, causal=causal, dtype="float16")
      for width in (64, 128) for causal in (False, True)),
    *(attention(260, 900, width=width) for width in (64, 128)),
    attention(200, 200, heads=4, key_heads=2, batch=2, width=128, strided=True, causal=True),
    attention(150, 270, heads=4, key_heads=1, dtype="float16", strided=True),
    *(attention(130, 130, width=width, offset=offset)
      for width in (64, 128) for offset in (0.0, 2.0, -math.log(131_072), -200.0)),
    *(attention(130, 130, offset=offset, dtype="float16") for offset in (0.0, 2.0, -200.0, 200.0)),
]  # fmt: skip

LIST = """
import json, sys, torch
from benchmarks.compiled import compiled, descriptor
from benchmarks.kernels import flash_sigmoid_hopper_backward as hopper

for width, dtype, causal in json.loads(sys.argv[1]):
    known = hopper.size(width) | {"UNIT": hopper.unit(torch.float16 if dtype == "fp16" else torch.bfloat16)}
    block = lambda rows: descriptor(dtype, (1, 1, rows, width))
    types = {"sums": descriptor("fp32", (64, 64)), "turns": "*i32", "biases": "*fp32", "scale": "fp32",
             **dict.fromkeys(("queries", "gradients"), block(known["M"])),
             **dict.fromkeys(("keys", "values", "key_gradients", "value_gradients"), block(64)),
             **dict.fromkeys(("query_count", "key_count", "heads", "group", "processors"), "i32")}
    made = compiled(hopper._backward, types, known | {"CAUSAL": causal})
    names = ("HGMMA", "HMMA", "UTMALDG", "UTMAREDG", "WARPGROUP.ARRIVE", "MUFU.EX2")
    print(json.dumps({"spilled": made.spilled, "shared": made.shared} | {name: made.count(name) for name in names}))
"""
COMPILED = [(64, "bf16", False), (64, "fp16", True), (128, "bf16", True), (128, "fp16", False)]


def backward(inputs):
    q, k, v, biases, _, causal, scale = tensors(inputs)
    assert hopper.supported(inputs["do"], q, k, v)
    return named(hopper.backward(inputs["do"], q, k, v, biases, causal, scale))


def failures(case, seed=0, processors=3):
    """In the interpreter, by the gate's own measure."""
    inputs = make(case, torch.Generator().manual_seed(0))
    with interpreted(hopper, seed=seed, processors=processors):
        judged = judge(case, backward, inputs, reference(inputs), plain(inputs))
    return [one for one in judged if not one.passed]


def found(case, seed=0, processors=3):
    inputs = make(case, torch.Generator().manual_seed(0))
    with interpreted(hopper, seed=seed, processors=processors), poisoned():
        return backward(inputs)


def same(one, other):
    """NaN is not the same as NaN."""
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_it_passes_the_gate_in_the_interpreter(case):
    assert failures(case) == []


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [64, 128])
def test_bits_of_one_head_depend_neither_on_what_happens_first_nor_on_how_many_processors_there_are(width, causal):
    case = attention(300, 300, width=width, heads=2, key_heads=1, causal=causal)
    first = found(case)
    assert all(same(first, found(case, seed, processors)) for seed, processors in ((1, 3), (2, 4), (3, 9)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("processors", [1, 2])
def test_more_blocks_of_keys_than_processors_wait_for_none_that_has_not_started(processors, causal):
    case = attention(200, 600, heads=2, causal=causal)
    assert failures(case, processors=processors) == []
    assert same(found(case, 1, processors), found(case, 2, processors))


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("processors", [1, 3, 5, 7])
def test_of_more_heads_than_fit_the_last_are_walked_backwards_to_the_same_sums(width, processors):
    case = attention(300, 300, width=width, heads=6, key_heads=3, batch=2, causal=True)
    assert failures(case, processors=processors) == []
    assert same(found(case, 1, processors), found(case, 2, processors))


@pytest.mark.parametrize(("queries", "keys"), [(300, 170), (170, 300), (64, 600)])
def test_heads_walked_backwards_may_have_more_or_fewer_keys_than_queries(queries, keys):
    assert failures(attention(queries, keys, heads=5, key_heads=5, causal=True)) == []


# -- broken on purpose -------------------------------------------------------------------------------------------------

BROKEN = attention(300, 300, width=128, heads=2)


def wrong_somewhere():
    first = found(BROKEN)
    return not all(same(first, found(BROKEN, seed)) for seed in range(1, 6))


def test_without_turns_sums_depend_on_what_happens_first(monkeypatch):
    monkeypatch.setattr(Hopper, "await_turn", lambda self, counter, turn: None)
    assert wrong_somewhere()


def test_a_turn_that_ends_before_its_sum_has_landed_is_seen(monkeypatch):
    def early(self, counter):
        counter.base[counter.offset] += 1
        self.launch.wait(lambda: True, "nothing")

    monkeypatch.setattr(Hopper, "end_turn", early)
    assert wrong_somewhere()


def test_a_turn_that_never_ends_is_a_deadlock(monkeypatch):
    monkeypatch.setattr(Hopper, "end_turn", lambda self, counter: None)
    with pytest.raises(Deadlock, match="turn 1 of a counter"):
        found(BROKEN)


def test_a_missing_fence_is_named(monkeypatch):
    monkeypatch.setattr(Hopper, "fence_async_shared", lambda self: None)
    with pytest.raises(Unfenced, match="before fence_async_shared"):
        found(BROKEN)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [64, 128])
def test_rows_that_see_nothing_get_exactly_zero(width):
    gradients = found(attention(300, 64, width=width, causal=True))
    assert torch.count_nonzero(gradients["dq"][:, :, :236]) == 0
    assert torch.count_nonzero(gradients["dq"][:, :, 236:]) > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_keys_that_nobody_weighs_get_exactly_zero(dtype):
    gradients = found(attention(130, 130, offset=-200.0, dtype=dtype))
    assert all(torch.count_nonzero(one) == 0 for one in gradients.values())


@pytest.mark.parametrize("width", [64, 128])
def test_where_all_weights_are_one_bfloat16_errs_by_what_its_form_errs(width):
    """Errors of equal weights do not cancel, so that there the gate's budget is a matter of luck."""
    case = attention(130, 130, width=width, offset=200.0)
    gradients, true = found(case), reference(make(case, torch.Generator().manual_seed(0)))
    error = (gradients["dv"].double() - true["dv"]).norm() / true["dv"].norm()
    assert 2e-3 < float(error) <= 1.2e-2
    assert torch.count_nonzero(gradients["dq"]) == torch.count_nonzero(gradients["dk"]) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradients_times_a_loss_scale_do_not_overflow_within(dtype):
    inputs = make(attention(130, 130, dtype=dtype), torch.Generator().manual_seed(0))
    inputs["do"] *= 3000
    largest = (inputs["do"].double() @ inputs["v"].double().mT).abs().max()
    assert largest > torch.finfo(torch.float16).max
    with interpreted(hopper):
        gradients = backward(inputs)
    for name, true in reference(inputs).items():
        assert (gradients[name].double() - true).norm() <= 1e-2 * true.norm()


def test_it_says_what_it_does_not_take():
    def half(*shape):
        return torch.zeros(shape, dtype=torch.float16)

    x = half(1, 2, 8, 64)
    assert hopper.supported(x, x, x, x)
    others = {
        "float32": x.float(), "width": half(1, 2, 8, 32), "empty": half(1, 2, 0, 64),
        "stride": half(1, 2, 8, 66)[..., :64], "expanded": half(1, 1, 1, 64).expand(1, 2, 8, 64),
        "aligned": half(1025)[1:].view(1, 2, 8, 64),
    }  # fmt: skip
    assert not any(hopper.supported(other, other, other, other) for other in others.values())
    assert not any(hopper.supported(others[name], x, x, x) for name in ("stride", "expanded", "aligned"))


@pytest.mark.parametrize(("options", "taken"), [({}, True), ({"alibi": True}, False), ({"width": 32}, False)])
def test_the_operator_leaves_to_the_portable_kernels_what_it_does_not_take(monkeypatch, options, taken):
    case = attention(33, 33, heads=2, key_heads=2, dtype="float16", **options)
    inputs = make(case, torch.Generator().manual_seed(0))
    called = []
    monkeypatch.setattr(flash_sigmoid, "is_hopper", lambda q: True)
    monkeypatch.setattr(hopper, "backward", lambda do, q, *rest: called.append(rest) or (q + 1, q + 2, q + 3))
    found = torch.ops.attest.flash_sigmoid_backward(inputs["do"], *tensors(inputs))
    assert bool(called) == taken
    assert torch.equal(found[0], inputs["q"] + 1) == taken


# -- compiled ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def looks():
    printed = run_apart(LIST, COMPILED)
    return {case: json.loads(line) for case, line in zip(COMPILED, printed.splitlines(), strict=True)}


@pytest.mark.parametrize(("width", "dtype", "causal"), COMPILED)
def test_it_keeps_its_sums_in_registers_and_multiplies_asynchronously(looks, width, dtype, causal):
    look = looks[width, dtype, causal]
    # The smallest block in registers is 128 bytes a thread. Under the mask some numbers of a walk, which a step needs
    # once, are not kept in registers; without it next to none.
    assert look["spilled"] <= (96 if causal else 16)
    assert look["shared"] <= 227 * 1024
    assert look["HMMA"] == 0
    # Five products of two warpgroups, an instruction for 16 of what is summed over: 4 or 8 each, dS K has two parts.
    assert look["HGMMA"] == 64
    assert look["UTMALDG"] > 0
    assert look["UTMAREDG"] > 0
    # One for each group of products: the assembler would put more between products that it cannot overlap.
    assert look["WARPGROUP.ARRIVE"] <= look["HGMMA"] / 2


@pytest.mark.parametrize(("width", "dtype", "causal"), COMPILED)
def test_a_weight_and_its_slope_cost_one_exponential(looks, width, dtype, causal):
    a_thread = ROWS.value * hopper.size(width)["M"] // 128
    # With a mask and without it are two pieces of code, in each of two warpgroups.
    assert looks[width, dtype, causal]["MUFU.EX2"] == 2 * a_thread * (1 + causal)
