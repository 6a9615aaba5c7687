"""SALE: calibration, cost and speed (Ji, Zhang, Fu, Cui, 2025).

What the paper says. A threshold a head is calibrated offline; selecting blocks costs about 11 % of full attention, and
attention of Llama-3.1-8B is at least 3.36 times as fast beyond 64 thousand tokens, both on an RTX 4090, whose tensor
cores multiply 4-bit integers (abstract, released code).

Notation. As in test_sale.py; theta is the error a token that calibration allows (L1 over channels), o the overhead of
selection and rho the share of pairs that are computed, both over dense attention.

Scope. Our own kernels, benchmarks/kernels/sale.py and sale_select.py, on the GPU of the run, in float16, width 128, on
synthetic heads that are calibrated with theta = 0.4. Hopper multiplies no 4-bit integers: they are carried in 8 bits.
Means, quantisation, thresholds, comparison and lists are in the times. "flash" is FlashAttention-2, the paper's class
of baseline, cuDNN the fastest dense attention of PyTorch on Hopper. Ratios have 99 % intervals.
"""

from reports.claim import Claim
from theory.operators import sale
from theory.operators.sale_heads import synthetic

PAPER = "ji2025sale"
OVERHEAD, SPEED_UP = 0.11, 3.36
"""As printed."""
LONG = (65_536, 131_072)
N, D = 1024, 128


class Head:
    """One synthetic head with a weak sink: its dense output, and its output at a threshold."""

    def __init__(self, rng, kind, number):
        q, k, self.v = rng(kind, number).standard_normal((3, N, D))
        self.q, self.k = synthetic(kind, q, k, contrast=3)
        self.v[0] = 0  # the sink's
        self.scores = sale.block_scores(self.q, self.k)
        self.dense = self.output(0)

    def output(self, tau):
        return sale.attend(self.q, self.k, self.v, sale.kept_blocks(self.scores, tau, N))

    def error(self, tau):
        return float(sale.error_per_token(self.output(tau), self.dense[None])[0])

    def calibrated(self, output=None):
        return float(sale.calibrated(output or (lambda tau: self.output(tau)[None]), self.dense[None])[0])


def first_threshold(head):
    """Stops at once, without looking at the error."""
    return sale.START


calibration = Claim(
    paper=PAPER,
    slug="calibration-ends-below-theta",
    where="Released code (calibration forward)",
    says="Halving the threshold from 0.008 ends after at most 8 evaluations, with an error a token below theta on the "
    "calibration's own input, if need be at 0, where attention is dense.",
    formula=r"\tfrac1N \sum_i \|\hat O_i - O_i\|_1 < \theta",
    gap="Other inputs, which is the claim thresholds-transfer. theta is in units of the values.",
)


@calibration.check("exact", controls={"first threshold without a look": {"calibrate": first_threshold}})
def test_the_error_on_the_calibration_input_is_below_theta(evidence, rng, *, calibrate=Head.calibrated):
    """Three kinds of heads of 1024 tokens with weak sinks, one input each; and an error that never falls."""
    for kind in ("local", "needle", "vertical"):
        head = Head(rng, kind, 0)
        tau = calibrate(head)
        evidence.expect("error a token", head.error(tau), less_than=("theta", sale.THETA))
        evidence.note(f"{kind}: tau = {tau:.3g} keeps {sale.density(sale.kept_blocks(head.scores, tau, N), N):.0%}.")
    seen = []
    last = head.calibrated(lambda tau: seen.append(tau) or head.dense[None] + (1 if tau[0] > 0 else 0))
    evidence.expect("evaluations", len(seen), at_most=8)
    evidence.expect("last threshold", last, equals=0, error=0)


transfer = Claim(
    paper=PAPER,
    slug="thresholds-transfer",
    where="Abstract, released code (offline calibration on one file); that theta holds elsewhere is our reading",
    says="Calibrated on one input, a head's threshold keeps the error a token below theta on other inputs of its kind.",
    formula=r"\tfrac1N \sum_i \|\hat O_i(\tau_0) - O_i\|_1 < \theta",
    gap="Synthetic heads with weak sinks, made so that calibration is close; how often it fails in a model is open.",
)


@transfer.refutation("exact", controls={"dense attention": {"calibrate": lambda head: 0}})
def test_another_input_of_the_same_kind_exceeds_theta(evidence, rng, *, calibrate=Head.calibrated):
    """Needles and vertical lines of 1024 tokens, 6 inputs each: every one calibrates, the others are judged."""
    errors = []
    for kind in ("needle", "vertical"):
        heads = [Head(rng, kind, number) for number in range(6)]
        for number, tau in enumerate(map(calibrate, heads)):
            errors += [(head.error(tau), kind, tau) for other, head in enumerate(heads) if other != number]
    most, kind, tau = max(errors)
    evidence.expect("largest error a token less theta", most - sale.THETA, at_least=0)
    evidence.note(f"theta is exceeded on {sum(one[0] >= sale.THETA for one in errors)} of {len(errors)} other inputs.")
    evidence.counterexample("Calibrated on one input, judged on another", kind=kind, tau=tau, error=most)


model = Claim(
    paper=PAPER,
    slug="speed-up-needs-few-pairs",
    where="Abstract (11 % and 3.36 times; the model of cost is ours)",
    says="With an overhead of 11 %, 3.36 times the speed needs at most 19 % of the pairs; with the 25 % that 8-bit "
    "products at twice the rate of 16-bit ones cost, at most 5 %.",
    formula=r"\frac{T}{T_{\text{dense}}} = o + \rho, \qquad "
    r"o = \frac12 \cdot \frac{\text{dense rate}}{\text{low-bit rate}}",
    gap="Equal use of the tensor cores by all kernels.",
)


@model.check("exact", controls={"overhead forgotten": {"density": lambda wanted, overhead: 1 / wanted}})
def test_the_densities_follow_from_the_overheads(evidence, *, density=sale.largest_density):
    """Overheads 0.11 and 1/2 x 1/2: the densities rounded to per cent, and the speed they give."""
    for overhead, share in ((OVERHEAD, 0.19), (1 / 4, 0.05)):
        found = density(SPEED_UP, overhead)
        evidence.expect("density less the stated one", found - share, within=(-0.005, 0.005))
        evidence.expect("speed-up", sale.speed_up(overhead, found), equals=SPEED_UP, error=1e-12)


# -- times -------------------------------------------------------------------------------------------------------------


def mixed(n):
    """Label of the case with a third of the heads of each kind."""
    from benchmarks.sale import SPEED

    (label,) = [case.label for case in SPEED if case.n == n and case.head == "mixed"]
    return label


def ratios(evidence, bench, slow, fast):
    """Ratio of times in each long case, noted."""
    for n in LONG:
        found = bench("sale").ratio(mixed(n), slow, fast)
        evidence.note(f"{n} tokens: {slow} over {fast} {found.median:.3g} [{found.low:.3g}, {found.high:.3g}].")
        yield found


overhead = Claim(
    paper=PAPER,
    slug="selection-costs-eleven-per-cent",
    where="Abstract",
    says="Selecting blocks takes at most 11 % of the time of full attention by FlashAttention-2.",
    formula=r"t_{\text{select}} / t_{\text{FA2}} \le 0.11",
    gap="On Hopper, where 4-bit integers are multiplied as 8-bit ones; the paper measured on an RTX 4090, which has "
    "twice that rate for 4 bits. A faster kernel than ours, which reaches half of the nominal 8-bit rate, is possible.",
)


@overhead.refutation("benchmark", controls={"quantisation alone": {"part": "quantising alone"}})
def test_selection_takes_more_than_eleven_per_cent(evidence, bench, *, part="selecting alone"):
    """64 and 128 thousand tokens, mixed heads: lower end of the interval above 0.11."""
    for found in ratios(evidence, bench, part, "SDPA/flash"):
        evidence.expect("overhead", found.low, at_least=OVERHEAD, interval=(found.low, found.high))
        evidence.counterexample("Share of FlashAttention-2's time", overhead=round(found.median, 3))


total = Claim(
    paper=PAPER,
    slug="prefill-is-faster-than-flash",
    where="Abstract (Llama-3.1-8B, beyond 64K tokens)",
    says="From 64 thousand tokens on, attention with selection and all is at least 3.36 times as fast as "
    "FlashAttention-2, on heads whose calibrated error holds.",
    formula=r"t_{\text{FA2}} / t_{\text{SALE}} \ge 3.36",
    gap="Synthetic heads, of which calibration keeps few pairs, and another GPU than the paper's; with more pairs it "
    "is slower, as the model of cost says. Part of the gain is that our kernel is faster than FlashAttention-2 even "
    "with every block given; what sparsity gains beside it is noted.",
)


@total.check("benchmark", controls={"nothing discarded": {"ours": "nothing discarded"}})
def test_prefill_is_at_least_so_much_faster(evidence, bench, *, ours="fast"):
    """64 and 128 thousand tokens, mixed heads: lower end of the interval at least 3.36."""
    for found in ratios(evidence, bench, "SDPA/flash", ours):
        evidence.expect("speed-up", found.low, at_least=SPEED_UP, interval=(found.low, found.high))
    list(ratios(evidence, bench, "attending to all, blocks given", ours))  # noted alone: the gain by sparsity


best = Claim(
    paper=PAPER,
    slug="prefill-is-faster-than-the-best-dense",
    where="Abstract, its baseline read as the fastest dense attention there is",
    says="From 64 thousand tokens on, attention is at least 3.36 times as fast as the fastest dense attention of "
    "PyTorch.",
    formula=r"t_{\text{cuDNN}} / t_{\text{SALE}} \ge 3.36",
    gap="The paper compares with FlashAttention-2 and does not say this. cuDNN is the fastest backend on Hopper.",
)


@best.refutation("benchmark", controls={"quantisation alone": {"part": "quantising alone"}})
def test_selection_alone_takes_too_long_whatever_is_kept(evidence, bench, *, part="selecting alone"):
    """64 and 128 thousand tokens: below 3.36 even if attention over the kept blocks took no time."""
    for found in ratios(evidence, bench, "SDPA/cudnn", part):
        evidence.expect("dense time over selection's", found.high, less_than=SPEED_UP, interval=(found.low, found.high))
        evidence.counterexample("cuDNN's time over selection's", ratio=round(found.median, 3))


@best.refutation("benchmark", scope="everything kept", controls={"calibrated thresholds": {"ours": "fast"}})
def test_with_everything_kept_it_is_slower_than_dense_attention(evidence, bench, *, ours="nothing discarded"):
    """tau = 0, 64 and 128 thousand tokens: selection is then paid for nothing, and shows."""
    for found in ratios(evidence, bench, "SDPA/cudnn", ours):
        evidence.expect("speed-up", found.high, less_than=1, interval=(found.low, found.high))
