"""Weights of the Hopper kernels of FlashSigmoid: scores of a block, in registers, become what values are multiplied by.

One of `FORMS`. "newton" is sigma(z) = 1 / (1 + 2^(-z log2 e)) with one special-function operation: the reciprocal is a
subtraction of exponents in integers and one step of Newton, within 1.3e-3; float16 has two steps, "newton twice", and
bfloat16 "packed newton": from the exponential on two weights an instruction, in bfloat16 itself. Instructions count,
since beside the products it is for them that these kernels wait. "divide" has a second special-function operation
instead of the step, "tanh" has 1/2 + 1/2 tanh(z/2), of which small weights have few right digits. The others are for
comparison: the same tiles and schedule with softmax, or with softmax's bookkeeping beside sigma.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from benchmarks.kernels.hopper import ROWS, special
from benchmarks.kernels.sigmoid_forms import GUESS, PACKED, PACKED_UNIT, STEP

FORMS = ("packed newton", "newton", "newton twice", "divide", "tanh", "newton with row maximum", "softmax")


@gluon.jit
def _logits(s, a, b, slope, back, settings, MASK: gl.constexpr):
    """s a + b, and under the mask what gives weight 0; the row of s is `back` keys behind its first column."""
    x = s * a + b
    if MASK or settings.ALIBI:
        rows = gl.arange(0, ROWS, layout=gl.SliceLayout(1, settings.SCORES)) + back
        columns = gl.expand_dims(gl.arange(0, settings.N, layout=gl.SliceLayout(0, settings.SCORES)), 0)
        # Bits 1 and 2 of a column depend on the thread alone, the others are constants: no register for each column.
        near, jump = gl.expand_dims(rows, 1) - (columns & 6), columns & ~6
        if settings.ALIBI:
            x -= slope * gl.abs(near - jump).to(gl.float32)
        if MASK:
            nothing: gl.constexpr = float("-inf") if settings.FORM == "tanh" else float("inf")
            x = gl.where(near >= jump, x, nothing)
    return x


@gluon.jit
def _reciprocal(n, TWICE: gl.constexpr):
    """-1 / n for n <= -1, within 1.3e-3 or 2e-6.

    The constants of the first guess, 0xFEF34000 less the bits of n, and of Newton's step are those of the smallest
    largest error. Where n is beyond -2^126 the guess is negative or NaN: both saturate to 0. The sign of n saves the
    negation that a step has for positive numbers.
    """
    y = (GUESS - n.to(gl.int32, bitcast=True)).to(gl.float32, bitcast=True)
    t = gl.fma(n, y, STEP)
    if TWICE:
        y *= t
        t = gl.fma(n, y, 2.0)
    return gl.inline_asm_elementwise(
        "mul.sat.f32 $0, $1, $2;", "=f,f,f", [y, t], dtype=gl.float32, is_pure=False, pack=1
    )


@gluon.jit
def _sigmoid(x, settings):
    """sigma(z) of x = z / 2 ("tanh") or -z log2 e."""
    if settings.FORM == "tanh":
        return special(x, "tanh.approx.f32") * 0.5 + 0.5
    elif settings.FORM == "packed newton":
        return gl.inline_asm_elementwise(PACKED, "=r,r,r", [x], dtype=gl.bfloat16, is_pure=False, pack=2)
    elif settings.FORM == "divide":
        return special(special(x, "ex2.approx.ftz.f32") + 1.0, "rcp.approx.ftz.f32")
    else:
        return _reciprocal(-1.0 - special(x, "ex2.approx.ftz.f32"), settings.FORM == "newton twice")


@gluon.jit
def weights(s, top, total, a, b, slope, back, settings, MASK: gl.constexpr):
    """Weights of a block (ROWS, N) float32, and what softmax keeps for each row: top, total, and how top changed."""
    x = _logits(s, a, b, slope, back, settings, MASK)
    keeps: gl.constexpr = settings.FORM == "softmax" or settings.FORM == "newton with row maximum"
    shrink = top
    if keeps:
        # x is -z log2 e, so that the largest logit is the smallest x.
        new = gl.minimum(top, gl.min(x, 1))
        shrink = gl.exp2(new - top)
        top = new
    if settings.FORM == "softmax":
        p = special(gl.expand_dims(new, 1) - x, "ex2.approx.ftz.f32")
    else:
        p = _sigmoid(x, settings)
    if keeps:
        total = total * shrink + gl.sum(p, 1)
    return p, top, total, shrink


@gluon.jit
def unit(settings):
    """What a sum of weighted values is to be multiplied by."""
    factor = 1.0
    if settings.FORM == "packed newton":
        factor = PACKED_UNIT
    return factor
