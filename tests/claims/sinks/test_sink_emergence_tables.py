"""When attention sink emerges: its tables and its configuration, read as they stand (Gu et al., 2024).

What the paper says. Some settings affect the sink (learning rate, weight decay, attention operation), others do not
(batch size, positions, FFN, number of heads). Models have 10 layers and width 768, 60M parameters; rates are means
over layers, heads and 100 sequences; the learning rate follows a cosine.

Notation. Rates are Sink_1 in percent, losses nats a token. Printed numbers are constants here; all else is computed.

Scope. Arithmetic: whether printed numbers are possible, agree with each other and carry the words put on them. Nothing
was retrained at this size. Numbers were read from a transcript of the paper, Tables 4 and 6 also from figures of the
released repository; its code gives the configuration.
"""

from itertools import pairwise

import numpy as np

from reports.claim import Claim
from theory.sinks.sink_emergence_identities import cosine_rate, parameters, possible

PAPER = "gu2024attentionsink"
LAYERS, SEQUENCES = 10, 100
BASE = (18.18, 3.73)
PRINTED = {  # setting: table -> (rate, loss); a setting that several tables contain
    "default": dict.fromkeys(("2", "3", "4", "6", "9", "10", "11", "12", "14", "15"), BASE),
    "key and value biases": {"4": (72.76, 3.72), "12": (72.76, 3.72)},
    "key biases": {"4": (73.34, 3.72), "5": (73.34, 3.72), "12": (73.34, 3.72)},
    "sigmoid": {"6": (0.44, 3.70), "14": (0.44, 3.70), "15": (0.44, 3.70)},
    "sigmoid, normalised": {"6": (30.24, 3.74), "15": (30.24, 3.74)},
    "elu": {"6": (0.80, 3.69), "15": (0.80, 3.69)},
    "elu kernel, normalised": {"6": (53.65, 4.19), "15": (53.65, 4.19)},
    "identity": {"6": (0.00, 3.99), "15": (0.00, 3.99)},
    "MLP kernel, normalised": {"6": (0.19, 3.85), "15": (0.19, 3.85)},
    "MLP kernel": {"6": (0.74, 3.91), "15": (0.74, 3.91)},
    "Mistral-7B": {"1, left": (97.49, 0), "1, right": (97.49, 0)},
    "LLaMA2-7B": {"1, left": (92.47, 0), "1, right": (92.47, 0)},
    "LLaMA3-8B": {"1, left": (99.02, 0), "1, right": (99.02, 0)},
}
HEADS = {1: "19.50", 2: "12.95", 4: "10.68"}
NO_EFFECT = {  # what the captions say has no effect on the sink's emergence
    "batch size (Table 10)": (16.45, 17.19, 18.18, 16.19),
    "positions (Table 3)": (20.35, 32.73, 33.13, 35.53, 20.78, 18.18),
    "FFN (Table 11)": (16.90, 14.76, 17.89, 13.88, 17.86, 18.18),
    "heads (Table 12)": (18.18, 10.68, 12.95, 19.50, 21.76),
}
HALF_RATE = (18.18, 16.81)
"""Learning rate 4e-4 with 20k steps and 2e-4 with 40k: 'less obvious' (Table 9)."""
GONE = (0.01, 0.00, 0.04, 0.00, 0.44, 0.80, 0.00, 0.19, 0.74, 0.64, 0.18, 0.30, 0.81, 0.36)
"""Where the paper says that there is no sink: weight decay 5, learned biases, attention without a norm."""
DIMENSIONS = {1: 32.18, 2: 30.88, 4: 30.94, 8: 31.39, 16: 23.30, 32: 51.23, 64: 69.19}
"""Sink on the key bias by its number of learnable dimensions (Table 13)."""
SCALES = {0.05: 4.53, 0.1: 3.59, 0.2: 9.41, 1.0: 18.18, 2.0: 29.10}
"""By what rows sum to (Table 14, left)."""


admissible = Claim(
    paper=PAPER,
    slug="printed-rates-are-possible",
    where="Table 12 (left)",
    says="The printed rates are shares of 100 sequences times 10 layers times the number of heads.",
    formula=r"100 \cdot \frac{m}{100 \cdot 10 \cdot H}, \quad m \in \mathbb{N}",
    gap="It can fail for one, two and four heads only: with eight, every number of two decimals is a possible share.",
)


@admissible.check(
    "exact",
    controls={
        "with another table row's heads": {"printed": {1: "12.95", 2: "19.50", 4: "12.95"}},
        "64 sequences": {"sequences": 64},
        "a digit changed": {"printed": HEADS | {1: "19.51"}},
    },
)
def test_rates_of_few_heads_are_shares_of_whole_numbers(evidence, *, printed=HEADS, sequences=SEQUENCES):
    """1000, 2000 and 4000 pairs of head and sequence, in decimal arithmetic."""
    for heads, rate in printed.items():
        evidence.true(f"{rate} % is possible with {heads} head(s)", possible(rate, sequences * LAYERS * heads))


@admissible.check("exact", scope="power", controls={"two heads": {"heads": 2}, "four heads": {"heads": 4}})
def test_with_eight_heads_every_rate_is_possible(evidence, *, heads=8):
    """8000 pairs: no number from 0.00 to 1.00 is impossible, so that agreement of the other tables says nothing."""
    shares = [possible(f"{i / 100:.2f}", SEQUENCES * LAYERS * heads) for i in range(101)]
    evidence.expect("possible among 101 rates", sum(shares), equals=101, error=0)


agree = Claim(
    paper=PAPER,
    slug="tables-agree",
    where="Tables 1-6, 9-12, 14, 15",
    says="A setting that several tables contain has the same rate and the same loss in all of them.",
    formula=r"(\mathrm{Sink}_1, \mathcal{L})_{\text{one table}} = (\mathrm{Sink}_1, \mathcal{L})_{\text{another}}",
    gap="Agreement of copies; nothing is said of the runs behind them.",
)


@agree.check(
    "exact",
    controls={
        "biases shared by heads": {"printed": PRINTED | {"key biases": {"4": (73.34, 3.72), "12": (68.31, 3.72)}}}
    },
)
def test_thirteen_settings_agree_wherever_they_stand(evidence, *, printed=PRINTED):
    """Spread of rate and loss over the tables."""
    for name, places in printed.items():
        evidence.expect("spread", np.ptp(list(places.values()), axis=0), equals=0, error=0)
        evidence.note(f"{name}: tables {', '.join(places)}.")


size = Claim(
    paper=PAPER,
    slug="sixty-million-parameters",
    where="Section 4",
    says="10 layers of width 768 with SwiGLU of width 1536 have about 60M parameters without embeddings.",
    formula=r"10 \, (4 \cdot 768^2 + 3 \cdot 768 \cdot 1536 + 2 \cdot 768) + 768 \approx 60 \cdot 10^6",
    gap="The two matrices of the vocabulary of 50432 tokens have another 77M.",
)


@size.check(
    "exact",
    controls={
        "with two matrices in the FFN": {"count": lambda *sizes: parameters(*sizes, gated=False)},
        "with the embeddings": {"count": lambda *sizes: parameters(*sizes) + 2 * 50432 * 768},
    },
)
def test_the_count_rounds_to_sixty_million(evidence, *, count=parameters):
    """To one significant digit."""
    evidence.expect("parameters, millions", count(768, LAYERS, 1536) / 1e6, within=(55, 65))


schedule = Claim(
    paper=PAPER,
    slug="cosine-schedule",
    where="Section 4, and the released configurations",
    says="The learning rate follows a cosine after 100 steps of warm-up: so in the released configuration.",
    formula=r"\eta_s = \eta_{\min}"
    r" + \tfrac{1}{2} \bigl( 1 + \cos \pi \tfrac{s - 100}{19900} \bigr) (\eta - \eta_{\min})",
    gap="All 54 released configurations set the least rate to the rate itself. What the runs in the paper used is not "
    "known.",
)
CONFIGURED = {"rate": 4e-4, "floor": 4e-4, "warmup": 100, "steps": 20_000}


@schedule.refutation(
    "exact",
    controls={"least rate of the code's own default, 1e-5": {"configured": CONFIGURED | {"floor": 1e-5}}},
)
def test_the_released_configuration_keeps_the_rate(evidence, *, configured=CONFIGURED):
    """The schedule of the code with these values: the same rate at every step after the warm-up."""
    rates = np.array([cosine_rate(step, **configured) for step in range(100, 20_001, 100)])
    evidence.expect("range of the rate over the rate", np.ptp(rates) / configured["rate"], equals=0, error=0)
    evidence.counterexample("configs/tinyllama_60m.yaml", learning_rate=4e-4, min_lr=4e-4)


words = Claim(
    paper=PAPER,
    slug="effect-and-no-effect",
    where="Captions of Tables 3 and 9-12 (our reading)",
    says="What is said to have no effect changes the rate of sinks less than what is said to make them less obvious.",
    formula=r"\max_{\text{no effect}} \lvert \Delta \mathrm{Sink}_1 \rvert"
    r" < \min_{\text{effect}} \lvert \Delta \mathrm{Sink}_1 \rvert",
    gap="Each setting was trained once, so that neither kind of difference can be told from that of another seed.",
    repair="If the question is whether there is a sink at all: where one is said to be, the rate is 10 % or more, and "
    "below 1 % where there is said to be none.",
)


@words.refutation("exact", controls={"weight decay 5 in place of half the learning rate": {"effect": (18.18, 0.01)}})
def test_settings_without_effect_change_the_rate_more_than_one_with(evidence, *, effect=HALF_RATE):
    """Each of the four kinds of setting without effect spans more than the learning rate at equal rate times steps."""
    spans = {name: np.ptp(rates) for name, rates in NO_EFFECT.items()}
    evidence.expect("least range without effect, points", min(spans.values()), at_least=np.ptp(effect))
    evidence.counterexample(
        "ranges in points", **{name.split(" (")[0].replace(" ", "_"): round(span, 2) for name, span in spans.items()},
        half_the_learning_rate=round(np.ptp(effect), 2),
    )  # fmt: skip


@words.check("exact", controls={"learning rate 1e-4, in between": {"present": {**NO_EFFECT, "rate": (2.90, 6.29)}}})
def test_sinks_are_there_or_not(evidence, *, present=NO_EFFECT, gone=GONE):
    """20 rates of models with a sink, 14 of models said to have none."""
    evidence.expect("rates with a sink, percent", np.concatenate([*present.values()]), at_least=10)
    evidence.expect("rates without, percent", np.array(gone), less_than=1)


def largest_fall(table):
    """The largest fall from one entry to the next, in points, and between which two."""
    keys = sorted(table)
    falls = [table[a] - table[b] for a, b in pairwise(keys)]
    at = int(np.argmax(falls))
    return falls[at], keys[at : at + 2]


dimensions = Claim(
    paper=PAPER,
    slug="more-dimensions-more-sink",
    where="Appendix D.4, Table 13",
    says="With more learnable dimensions of the key bias, its sink is more obvious.",
    formula=r"d_a < d_a' \;\Rightarrow\; \mathrm{Sink}_*(d_a) \le \mathrm{Sink}_*(d_a')",
    gap="One run for each number of dimensions. The transcript of this table was not compared with the print.",
    repair="For 32 and 64 dimensions against 16 and fewer.",
)


@dimensions.refutation(
    "exact",
    controls={
        "without 1 and 16 dimensions": {"table": {d: rate for d, rate in DIMENSIONS.items() if d not in (1, 16)}}
    },
)
def test_sixteen_dimensions_have_less_than_one(evidence, *, table=DIMENSIONS):
    """From 1 to 16 dimensions the rate falls from 32.18 to 23.30 %, most of it in one step."""
    fall, (a, b) = largest_fall(table)
    evidence.expect("largest fall from an entry to the next, points", fall, at_least=0)
    evidence.counterexample(f"d_a = {a} and {b}", first=table[a], then=table[b])


@dimensions.check("exact", controls={"16 among the many": {"many": (16, 32, 64)}})
def test_many_dimensions_have_more_than_few(evidence, *, many=(32, 64)):
    """Least rate of the many less the largest of the others."""
    few = [rate for d, rate in DIMENSIONS.items() if d not in many]
    evidence.expect("difference, points", min(DIMENSIONS[d] for d in many) - max(few), at_least=0)
    evidence.expect("64 less 32", DIMENSIONS[64] - DIMENSIONS[32], at_least=0)


scales = Claim(
    paper=PAPER,
    slug="smaller-scale-fewer-sinks",
    where="Appendix D.4, Table 14 (left)",
    says="With a smaller scale of the rows fewer heads have a sink, yet some do at each scale.",
    formula=r"f < f' \;\Rightarrow\; 0 < \mathrm{Sink}_1(f) \le \mathrm{Sink}_1(f')",
    gap="One run for each scale; a scale is also another learning rate (see output-scale-is-learning-rate).",
    repair="From 0.1 to 2; at 0.05 the rate is a point higher than at 0.1.",
)


@scales.refutation("exact", controls={"from 0.1 on": {"table": {k: v for k, v in SCALES.items() if k > 0.05}}})
def test_half_the_scale_has_more_sinks(evidence, *, table=SCALES):
    """From 0.05 to 0.1 the rate falls."""
    fall, (a, b) = largest_fall(table)
    evidence.expect("largest fall from an entry to the next, points", fall, at_least=0)
    evidence.counterexample(f"scales {a} and {b}", first=table[a], then=table[b])


@scales.check("exact", controls={"from 0.05 on": {"start": 0.05}})
def test_from_a_tenth_on_the_rate_grows(evidence, *, start=0.1):
    """And is above 0 at each scale."""
    rates = [rate for scale, rate in sorted(SCALES.items()) if scale >= start]
    evidence.expect("growth, points", np.diff(rates), at_least=0)
    evidence.expect("least rate, percent", min(SCALES.values()), at_least=1)
