"""The gains that ZeroTuning prints (Han et al., 2025): do its abstracts and averages agree?

What the paper says. Version 1: Llama-3.1-8B gains 11.71 % on classification and 2.64 % on question answering, and its
MT-Bench score rises from 7.804 to 7.966. Version 3: relative gains of 19.9, 4.5 and 2.1 %. It beats ACT and Auto-PASTA.

Notation. Averages of accuracy in percent over the classification and the question-answering sets, from a third party's
notes on the version at ICLR 2026, plain and tuned.

Scope. Arithmetic. Nothing here runs a language model; for that see test_zerotuning_checkpoint.py.
"""

from reports.claim import Claim

PAPER = "han2025zerotuning"
AVERAGES = {
    "Llama-3.1-8B, classification": (59.59, 71.44),
    "Llama-3.1-8B, QA": (58.84, 61.48),
    "Qwen-2-7B, classification": (55.10, 68.19),
    "Qwen-2-7B, QA": (63.10, 64.84),
    "R1-14B, classification": (67.67, 71.87),
    "R1-14B, QA": (60.05, 62.20),
}
RIVALS = {"ACT": 60.11, "Auto-PASTA": 63.73}
"""Averages on classification, Llama-3.1-8B."""
MT_BENCH = {"Llama-3.1-8B": (7.804, 7.966), "Llama-2-13B": (6.650, 6.916)}
RELATIVE = (19.9, 4.5, 2.1)


def rows():
    return (*(AVERAGES[f"Llama-3.1-8B, {task}"] for task in ("classification", "QA")), MT_BENCH["Llama-3.1-8B"])


def relative(before, after):
    return 100 * (after / before - 1)


def absolute(before, after):
    return after - before


relative_gains = Claim(
    paper=PAPER,
    slug="relative-gains",
    where="Abstract (version 3)",
    says="On Llama-3.1-8B the relative gains are 19.9 % on classification, 4.5 % on question answering and 2.1 % on "
    "dialogue.",
    formula=r"\tfrac{71.44}{59.59} - 1 = 0.199, \quad \tfrac{61.48}{58.84} - 1 = 0.045,"
    r" \quad \tfrac{7.966}{7.804} - 1 = 0.021",
    gap="That the abstract follows from the averages, not that the averages are right.",
)


@relative_gains.check("exact", controls={"points in place of ratios": {"gain": absolute}})
def test_the_relative_gains_follow_from_the_averages(evidence, *, gain=relative):
    """Each within the rounding of the percentage and of the two averages it comes from."""
    for (before, after), printed, digits in zip(rows(), RELATIVE, (2, 2, 3), strict=True):
        half = 10.0**-digits / 2
        error = 0.05 + 100 * half * (1 / before + after / before**2)
        evidence.expect("relative gain less the printed one", gain(before, after) - printed, equals=0, error=error)


absolute_gains = Claim(
    paper=PAPER,
    slug="absolute-gains",
    where="Abstract (version 1)",
    says="Llama-3.1-8B gains 11.71 points on classification and 2.64 on question answering.",
    formula=r"71.44 - 59.59 = 11.85 \ne 11.71, \quad 61.48 - 58.84 = 2.64",
    gap="The averages are those of a later version; version 1 may have had others.",
)


@absolute_gains.check("exact", controls={"ratios in place of points": {"gain": relative}})
def test_one_of_two_absolute_gains_follows_from_the_later_averages(evidence, *, gain=absolute):
    """Question answering agrees within rounding; classification differs by fourteen roundings of its two averages."""
    evidence.expect("points on QA", gain(*AVERAGES["Llama-3.1-8B, QA"]), equals=2.64, error=0.015)
    found = absolute(*AVERAGES["Llama-3.1-8B, classification"])
    evidence.note(f"Classification: the later averages differ by {found:.2f} points, the first abstract says 11.71.")
    evidence.inconclusive(needs="the averages of version 1")


better = Claim(
    paper=PAPER,
    slug="benchmark-gains",
    where="Abstract; main tables",
    says="On 15 data sets and several models tuning the first token improves accuracy and MT-Bench scores, by more "
    "than ACT and Auto-PASTA, and robustly under few shots, long contexts, quantisation, decoding and prompts.",
    formula=r"\mathrm{acc}(\gamma^\star) > \mathrm{acc}(1), \quad 71.44 > 63.73 > 60.11 > 59.59",
    gap="gamma and heads are chosen on validation data: a gain must be shown against random choices of the same "
    "budget, and unparsable answers, which count as wrong, must be told apart.",
)


@better.check("exact", controls={"rows exchanged": {"order": (1, 0)}})
def test_the_printed_rows_are_improvements(evidence, *, order=(0, 1)):
    """All averages rise, above both rivals on classification; the notes say how many answers that takes."""
    for name, row in {**AVERAGES, **MT_BENCH}.items():
        before, after = (row[i] for i in order)
        evidence.expect("relative gain", relative(before, after), at_least=0, unit="%")
        if name in AVERAGES:
            p = (before + after) / 200
            answers = 2 * p * (1 - p) * (1.96 * 100 / (after - before)) ** 2
            evidence.note(f"{name}: beyond sampling error from {answers:.0f} answers on, unpaired.")
    tuned = AVERAGES["Llama-3.1-8B, classification"][order[1]]
    evidence.expect("points above the better rival", tuned - max(RIVALS.values()), at_least=0, unit="points")
    evidence.inconclusive(needs="models of 7B and more on the 15 data sets, with held-out choices of gamma and heads")
