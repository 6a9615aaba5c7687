"""What the tables of open models say (Gu et al., ICLR 2025, table 1): natural, random and repeated tokens, and chat.

What the paper says. Sinks are there on random tokens too; on one repeated token models with relative positions have
none. Tuning for chat barely changes them.

Notation. Shares of heads with a sink on the first token, in per cent. "Barely" is read as: by at most a tenth of it;
"too" as: at least three quarters of it.

Scope. The printed numbers, not the models: test_sink_emergence_checkpoint.py measures yours.
"""

from reports.claim import Claim

PAPER = "gu2024attentionsink"
RELATIVE = {
    "Mistral-7B": (97.49, 75.21, 0.00),
    "LLaMA2-7B": (92.47, 90.13, 0.00),
    "LLaMA3-8B": (99.02, 91.23, 0.00),
}
"""Natural, random, repeated."""
LEARNED = {"GPT2-XL": (77.00, 70.29, 62.28)}
CHAT = {
    "Mistral-7B": (97.49, 88.34),
    "LLaMA2-7B": (92.47, 92.88),
    "LLaMA2-13B": (91.69, 90.94),
    "LLaMA3-8B": (99.02, 98.85),
}
"""Before and after tuning for chat."""


inputs = Claim(
    paper=PAPER,
    slug="open-models-inputs",
    where="Section 3.3, Table 1",
    says="Open models have at least three quarters of their sinks on random tokens too; on a repeated token those with "
    "relative positions have none, and GPT2-XL, whose positions are learned, keeps most.",
    formula=r"\mathrm{Sink}(\text{random}) \ge \tfrac{3}{4} \mathrm{Sink}(\text{natural}), \quad"
    r" \mathrm{Sink}(\text{repeated}) = 0",
    gap="Four of the paper's models; the numbers are read off, not measured.",
)


@inputs.check("exact", controls={"GPT2-XL as if relative": {"relative": {**RELATIVE, **LEARNED}}})
def test_shares_on_random_and_repeated_tokens(evidence, *, relative=RELATIVE):
    """Ratios of the printed shares."""
    for natural, random, _ in (*RELATIVE.values(), *LEARNED.values()):
        evidence.expect("random over natural", random / natural, at_least=0.75)
    for _, _, repeated in relative.values():
        evidence.expect("share on a repeated token, relative positions", repeated, equals=0, error=0, unit="%")
    for natural, _, repeated in LEARNED.values():
        evidence.expect("repeated over natural, learned positions", repeated / natural, at_least=0.5)


chat = Claim(
    paper=PAPER,
    slug="open-models-chat",
    where="Section 3.4, Table 1",
    says="Tuning for chat changes the share of sinks by at most a tenth of it.",
    formula=r"| \mathrm{Sink}(\text{chat}) / \mathrm{Sink} - 1 | \le 0.1",
    gap="Four models; Mistral-7B comes close to the tenth, the others are within a hundredth.",
)


@chat.check("exact", controls={"random tokens": {"pairs": {name: row[:2] for name, row in RELATIVE.items()}}})
def test_chat_models_keep_their_sinks(evidence, *, pairs=CHAT):
    """Ratios of the printed shares."""
    for before, after in pairs.values():
        evidence.expect("change over the share before", abs(after / before - 1), at_most=0.1)
