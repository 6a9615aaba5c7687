"""Magnitude-aware linear attention: the paper's tables of accuracy (Fan, Huang, Ai, He, ICCV 2025).

What the paper says. As a drop-in on ImageNet MALA is more accurate than other linear attentions; MAViT-S, B and L reach
84.7, 85.7 and 86.0 % top-1; it carries over to detection, speech, image generation and language.

Notation. Printed numbers are constants here.

Scope. Arithmetic on the printed numbers; nothing was trained at this size. test_mala_trained.py has small networks.
"""

from reports.claim import Claim

PAPER = "fan2025mala"
DROP_IN = {  # MALA, then Hydra, Enhanced, Focused and InLine linear attention where printed
    "DeiT-T": (75.1, 68.3, 72.9, 74.1, 74.5),
    "Swin-T": (83.7, 80.7, 81.8, 82.1, 82.4),
    "Swin-S": (85.3, 83.5, 83.6),
}

imagenet = Claim(
    paper=PAPER,
    slug="imagenet-accuracy",
    where="Tables: drop-in comparison, backbones",
    says="On ImageNet-1K MALA in DeiT-T, Swin-T and Swin-S reaches 75.1, 83.7 and 85.3 % top-1, more than any other "
    "linear attention of the table; MAViT-S, B and L reach 84.7, 85.7 and 86.0 %.",
    formula=r"75.1 > 74.5, \quad 83.7 > 82.4, \quad 85.3 > 83.6",
    gap="We only check that the printed gains exceed what 50 000 validation images leave to chance; one run each, and "
    "the spread between seeds is unknown.",
)


@imagenet.check("exact", controls={"a gain of a tenth of a point": {"table": {"DeiT-T": (74.6, 74.5)}}})
def test_the_printed_gains_exceed_the_sampling_error_of_the_validation_set(evidence, *, table=DROP_IN):
    """Lead over the best rival in unpaired binomial standard errors, which are the larger ones; 5 %, one-sided."""
    from scipy.stats import norm

    for ours, *rivals in table.values():
        theirs = max(rivals)
        variance = sum(p / 100 * (1 - p / 100) / 50_000 for p in (ours, theirs))
        evidence.expect("standard errors of the gain", (ours - theirs) / 100 / variance**0.5, at_least=norm.isf(0.05))
    evidence.inconclusive(needs="training on ImageNet-1K for 300 epochs, several seeds, or the authors' checkpoints")


elsewhere = Claim(
    paper=PAPER,
    slug="gains-on-other-tasks",
    where="Abstract, tables on COCO, speech, image generation, language",
    says="MALA lowers the word error rate of speech recognition from 2.7 to 2.4 and from 6.3 to 5.3, the FID of a "
    "diffusion transformer from 68.40 to 49.62, reaches 55.5 box and 48.0 mask AP on COCO, and is comparable in "
    "language modelling (0.3 B parameters, 15 B tokens).",
    formula=r"2.7 \to 2.4, \quad 6.3 \to 5.3, \quad 68.40 \to 49.62",
    gap="Nothing at our scale speaks to these tasks.",
)


@elsewhere.check("exact", controls={"rows exchanged": {"table": ((2.4, 2.7), (5.3, 6.3), (49.62, 68.40))}})
def test_the_printed_rows_are_improvements(evidence, *, table=((2.7, 2.4), (6.3, 5.3), (68.40, 49.62))):
    """Relative reductions computed from the printed numbers; lower is better in each."""
    for before, after in table:
        evidence.expect("relative reduction", 1 - after / before, at_least=0)
    evidence.inconclusive(needs="LibriSpeech, COCO and ImageNet training runs of the authors' size")
