"""L2ViT: the paper's tables (Zheng, 2025).

What the paper says. L2ViT-T, S and B have 29, 50 and 89 M parameters, 4.7, 9.0 and 15.9 GFLOPs and reach 83.1, 84.1 and
84.4 % on ImageNet-1K, 87.0 % with more data; they serve detection and segmentation.

Notation. A multiply-add counts as one operation. Printed numbers are constants here; all else is computed.

Scope. Counts are integers, from the released configuration read at commit 52f008c; nothing was trained at this size.
"""

from fractions import Fraction

import numpy as np

from reports.claim import Claim
from theory.operators.l2vit import BACKBONES

PAPER = "zheng2025l2vit"
TABLE = {"L2ViT-T": (29, 4.7), "L2ViT-S": (50, 9.0), "L2ViT-B": (89, 15.9)}

sizes = Claim(
    paper=PAPER,
    slug="sizes-and-linear-cost",
    where="README, table of backbones",
    says="L2ViT-T, S and B have 29, 50 and 89 M parameters and 4.7, 9.0 and 15.9 GFLOPs at 224 x 224 pixels, and "
    "their cost is linear in the number of tokens.",
    formula=r"C(N) = c_1 N + c_0",
    gap="Counted from the released configuration by our formula. A multiply-add is one operation, as in the paper. For "
    "L2ViT-B at 384 x 384 pixels, with the released windows of 12, we count 47.3 G; the table has 47.5.",
)
BROKEN = {"global attention with an N x N matrix": {"build": lambda m: type(m)(m.dims, m.depths, linear=False)}}


@sizes.check("exact", controls=BROKEN)
def test_counts_meet_the_table_and_grow_linearly(evidence, *, build=lambda model: model):
    """Parameters within half a million and multiply-adds within 0.1 G of the table; equal growth per token from 224 to
    448 and from 448 to 896 pixels."""
    for name, (millions, giga) in TABLE.items():
        model = build(BACKBONES[name])
        counts = [model.multiplications(224 * times) for times in (1, 2, 4)]  # 1, 4 and 16 times the tokens
        evidence.expect(
            "parameters", Fraction(model.parameters(), 10**6), equals=millions, error=Fraction(1, 2), unit="M"
        )
        evidence.note(f"{name}: {model.parameters() / 1e6:.2f} M parameters, {counts[0] / 1e9:.2f} G multiply-adds.")
        evidence.expect("multiply-adds", counts[0] / 1e9, equals=giga, error=0.1, unit="G")
        growth = Fraction(counts[2] - counts[1], 12) - Fraction(counts[1] - counts[0], 3)
        evidence.expect("change of the cost per token", growth, equals=0, error=0)


imagenet = Claim(
    paper=PAPER,
    slug="imagenet-accuracy",
    where="Abstract, README",
    says="L2ViT-T, S and B reach 83.1, 84.1 and 84.4 % top-1 on ImageNet-1K; with ImageNet-22k, B reaches 86.0 % and "
    "at 384 x 384 pixels 87.0 %.",
    formula=r"83.1 < 84.1 < 84.4 < 86.0 < 87.0",
    gap="Only the order of the printed numbers is checked. The README's links lead to ConvNeXt's checkpoints: loading "
    "them would test another model.",
)


@imagenet.check("exact", controls={"rows exchanged": {"row": (84.1, 83.1, 84.4, 86.0, 87.0)}})
def test_the_printed_accuracies_rise_with_size_data_and_resolution(evidence, *, row=(83.1, 84.1, 84.4, 86.0, 87.0)):
    """Differences of neighbouring numbers, and the step from S to B over its binomial standard error, 50 000 images."""
    evidence.expect("least step", np.diff(row).min(), at_least=0, unit="points")
    error = sum(p / 100 * (1 - p / 100) / 50_000 for p in row[1:3]) ** 0.5
    evidence.note(f"S to B is {(row[2] - row[1]) / 100 / error:.1f} unpaired standard errors of the validation set.")
    evidence.inconclusive(needs="the authors' checkpoints, which are not published, or 300 epochs on ImageNet")


backbone = Claim(
    paper=PAPER,
    slug="backbone-for-detection-and-segmentation",
    where="Abstract",
    says="L2ViT compares favourably as a backbone for detection and segmentation.",
    formula=r"C(896 \times 896) \le 16\, C(224 \times 224)",
    gap="Accuracy on COCO and ADE20K is not checked; only that cost at such resolutions is affordable.",
)


@backbone.check("exact", controls=BROKEN)
def test_at_a_detector_s_resolution_the_cost_stays_proportional(evidence, *, build=lambda model: model):
    """Multiply-adds at 896 x 896 pixels over those at 224 x 224, which has a sixteenth of the tokens: at most 16."""
    for model in map(build, BACKBONES.values()):
        evidence.expect("cost ratio", Fraction(model.multiplications(896), model.multiplications(224)), at_most=16)
    evidence.inconclusive(needs="detectors and segmenters trained on COCO and ADE20K with L2ViT and its rivals")
