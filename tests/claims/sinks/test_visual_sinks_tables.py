"""The scores that VAR prints (Kang et al., 2025, tables 1 to 5): are they possible, and what do they decide?

What the paper says. VAR improves six multimodal models on every benchmark of tables 1 to 3. Table 4: without a choice
of heads POPE, MME and MM-Vet fall to 0.0. Table 5: attention is best given to visual tokens alone.

Notation. On POPE half of the questions have the answer yes: F1 and accuracy then give the recall R and the rate of
false alarms f, as F1 = R / (R + 1 - acc) and f = R + 1 - 2 acc.

Scope. Arithmetic of printed numbers, from a review of the paper with pictures of its tables; not all rows are at hand.
"""

from reports.claim import Claim
from theory.sinks.visual_sinks import false_alarms, least_spread, recall

PAPER = "kang2025visual"
HALF = 0.0005
"""Half a unit of the last printed digit."""
POPE = {
    "LLaVA-1.5-7B": (0.859, 0.848),
    "LLaVA-1.5-7B, VAR": (0.865, 0.859),
    "LLaVA-1.5-7B, VAR to visual and text": (0.862, 0.853),
    "LLaVA-1.5-7B, VAR to text": (0.703, 0.700),
    "LLaVA-1.5-HD-13B, VAR": (0.877, 0.879),
}
"""F1 and accuracy."""
HD = (0.871, 0.850)
"""LLaVA-1.5-HD-13B without VAR."""
TABLE_5 = {
    "baseline": (85.9, 84.8, 1495.5, 31.1),
    "visual": (86.5, 85.9, 1513.8, 33.7),
    "visual and text": (86.2, 85.3, 1503.9, 33.5),
    "text": (70.3, 70.0, 1497.3, 26.7),
}
"""LLaVA-1.5-7B: F1 and accuracy on POPE, MME, MM-Vet; by the receivers of the attention."""


def rates(f1, accuracy):
    """Smallest recall within the rounding of both scores, and its rate of false alarms."""
    hits = recall(f1 - HALF, accuracy + HALF)
    return hits, false_alarms(hits, accuracy + HALF)


possible = Claim(
    paper=PAPER,
    slug="pope-scores-are-possible",
    where="Table on POPE: LLaVA-1.5-HD-13B without VAR",
    says="The printed pairs of F1 and accuracy are those of one model on balanced questions.",
    formula=r"R = \frac{F_1 (1 - \mathrm{acc})}{1 - F_1} \le 1",
    gap="Means over POPE's three sets are possible at the spreads of the notes, if recall is the same on all three, as "
    "their positive questions are; then both scores of that row are means of very unlike sets.",
)


@possible.refutation("exact", controls={"with VAR": {"pair": POPE["LLaVA-1.5-HD-13B, VAR"]}})
def test_one_baseline_needs_a_recall_above_one(evidence, *, pair=HD):
    """F1 87.1 with accuracy 85.0: within their rounding the recall is 1.005 at least, so they come from two runs."""
    hits, _ = rates(*pair)
    evidence.expect("least recall", hits, at_least=1.0)
    evidence.counterexample("LLaVA-1.5-HD-13B", F1=pair[0], accuracy=pair[1], recall=recall(*pair))
    for level in (1.0, 0.95, 0.9):
        spread = least_spread(pair[0] - HALF, pair[1] + HALF, level)
        evidence.note(f"As means over three sets with recall {level:g}: false alarms differ by {spread:.2f} at least.")
    for name, other in POPE.items():
        hits = recall(*other)
        evidence.note(f"{name}: recall {hits:.3f}, false alarms {false_alarms(hits, other[1]):.3f}.")


@possible.check("exact", scope="the other rows at hand", controls={"the baseline of HD-13B": {"table": {"HD-13B": HD}}})
def test_other_pairs_are_possible(evidence, *, table=POPE):
    """Recall and false alarms between 0 and 1; their order is that of any guess better than chance."""
    for f1, accuracy in table.values():
        hits = recall(f1, accuracy)
        evidence.expect("recall", hits, within=(0.0, 1.0))
        evidence.expect("false alarms", false_alarms(hits, accuracy), within=(0.0, hits))


receivers = Claim(
    paper=PAPER,
    slug="visual-receivers-are-best",
    where="Table 5",
    says="Giving the attention to visual tokens improves POPE, MME and MM-Vet more than giving it to text as well, and "
    "giving it to text alone harms.",
    formula=r"\text{visual} > \text{visual and text} > \text{baseline} > \text{text}",
    gap="One run a cell, of one model; by MME text alone does not harm.",
)


@receivers.check("exact", controls={"visual and text for visual": {"first": "visual and text"}})
def test_the_printed_order_is_visual_first(evidence, *, first="visual"):
    """In all four scores visual is ahead of both others and of the baseline."""
    for name in ("visual and text", "baseline", "text"):
        lead = min(a / b - 1 for a, b in zip(TABLE_5[first], TABLE_5[name], strict=True))
        evidence.expect(f"least lead over {name}", -lead, less_than=0)
    mme = TABLE_5["text"][2] - TABLE_5["baseline"][2]
    evidence.note(f"Text alone loses 15 points on POPE, but its MME is {mme:.1f} above the baseline's.")
    evidence.inconclusive(needs="LLaVA-1.5-7B with VAR on POPE, MME and MM-Vet, each cell several times")


collapse = Claim(
    paper=PAPER,
    slug="without-selection-all-is-lost",
    where="Table 4",
    says="Without the choice of image-centric heads LLaVA-1.5-7B scores 0.0 on POPE, MME and MM-Vet.",
    formula=r"\mathrm{POPE} = \mathrm{MME} = \mathrm{MM\text{-}Vet} = 0.0",
    gap="A score of 0.0 where guessing gives two thirds says that the output could not be read; how bad the "
    "predictions are it does not say. Mechanisms: selection-bounds-amplification and selection-prevents-collapse.",
)


def f1_of_yes(share):
    """F1 on balanced questions where a share of all answers is yes, at random."""
    return share / (share + 0.5)


@collapse.check("exact", controls={"always no": {"share": 0.0}})
def test_no_answers_at_all_score_less_than_any_guess(evidence, *, share=0.5):
    """Guessing yes at random gives F1 0.5, saying yes always 2/3: 0.0 asks for no yes at all."""
    evidence.expect("F1 of a guess", f1_of_yes(share), at_least=0.5)
    evidence.expect("F1 of always yes", f1_of_yes(1.0), at_least=2 / 3)
    evidence.inconclusive(needs="LLaVA-1.5-7B with redistribution in all heads, and its answers")


everywhere = Claim(
    paper=PAPER,
    slug="improves-every-benchmark",
    where="Abstract; Tables 1 to 3",
    says="VAR improves six multimodal models on general, hallucination and vision-centric benchmarks, in every cell, "
    "without training, further models or further passes.",
    formula=r"\text{score}(\text{VAR}) > \text{score}(\text{baseline}) \text{ in } 19 \times 6 \text{ cells}",
    gap="Cells of one model are not independent and rho is chosen for each task: a sign test would mean little.",
)


@everywhere.check("exact", controls={"the two exchanged": {"order": ("visual", "baseline")}})
def test_the_rows_at_hand_are_improvements(evidence, *, order=("baseline", "visual")):
    """LLaVA-1.5-7B, four scores: the note has how many POPE answers its gain in accuracy takes to be beyond chance."""
    before, after = (TABLE_5[name] for name in order)
    gains = [b / a - 1 for a, b in zip(before, after, strict=True)]
    evidence.expect("least relative gain", -min(gains), less_than=0)
    p, gain = (before[1] + after[1]) / 200, abs(after[1] - before[1]) / 100
    answers = 2 * p * (1 - p) * (1.96 / gain) ** 2
    evidence.note(f"POPE, {gain:.3f} in accuracy: beyond sampling error from {answers:.0f} answers on, unpaired.")
    evidence.inconclusive(needs="the six models on the 19 benchmarks, with held-out choices of rho")
