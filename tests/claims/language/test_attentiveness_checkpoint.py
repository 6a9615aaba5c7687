"""The mass on answer choices under a checkpoint of your own (Wiegreffe et al., EMNLP 2023).

What the paper says. For its six models, listing the choices and giving one example raises the mass on the choices, PMA,
and resolves most instances: no synonyms could change the prediction.

Notation. As in test_attentiveness.py. Scope. The model behind --checkpoint, the questions behind --questions; without
them these claims are not run.
"""

from fractions import Fraction
from statistics import fmean as mean

from reports.claim import Claim
from theory.language import attentiveness as theory

PAPER = "wiegreffe2023increasing"
ALPHA = 1e-3


checkpoint_mass = Claim(
    paper=PAPER, slug="checkpoint-mass", where="abstract: a) choices in the prompt, b) one in-context example",
    says="On your checkpoint, listing the choices and giving one example raises the mass on the choices over that of "
    "the bare question.",
    formula=r"\mathrm{PMA}(\text{one example, choices listed}) > \mathrm{PMA}(\text{question alone})",
    gap="About the checkpoint that is given, not about the paper's six. An answer ends at the end token or a line "
    "break; other tokenisations of the same string are not counted. Examples come from the questions file.",
)  # fmt: skip

checkpoint_resolved = Claim(
    paper=PAPER, slug="checkpoint-resolved",
    where="abstract of version 2 and Table 8, weakened: the paper says that most instances are resolved",
    says="On your checkpoint, listing the choices and giving one example resolves more questions than it unresolves.",
    formula=r"\#\{x : P_{(1)} - P_{(2)} > 1 - \mathrm{PMA}\} \text{ rises}",
    gap="The share that is resolved is reported and not judged: the paper's majority is about its six models.",
)  # fmt: skip

BARE, LISTED = ("no choices", 0, "draw 1"), ("string choices", 1, "draw 1")  # format, examples, draw of examples
WITHOUT_GAIN = {
    "the question alone, twice": {"after": BARE},
    "two prompts that differ by the draw of their example": {"before": ("string choices", 1, "draw 2")},
}


def scored(checkpoint, questions, rng, prompt):
    """Every question's choices under one prompt."""
    from empirical.questions import measure

    style, examples, draw = prompt
    return measure(checkpoint, questions, style, examples, seed=rng.seed(draw))


def is_resolved(probabilities):
    return theory.resolved([Fraction(p) for p in probabilities])


@checkpoint_mass.check("experiment", controls=WITHOUT_GAIN)
def test_the_checkpoint_attends_to_listed_choices(evidence, rng, checkpoint, questions, *, before=BARE, after=LISTED):
    """Paired sign test over your questions, a tie counting against: PMA of complete strings, listed against bare."""
    pairs = [scored(checkpoint, questions, rng, prompt) for prompt in (before, after)]
    wins = sum(sum(new.complete) > sum(old.complete) for old, new in zip(*pairs, strict=True))
    evidence.sign_test("questions with more mass on their choices", wins, len(questions), alpha=ALPHA)


@checkpoint_resolved.check("experiment", controls=WITHOUT_GAIN)
def test_the_checkpoint_resolves_more_questions(evidence, rng, checkpoint, questions, *, before=BARE, after=LISTED):
    """Sign test over the questions whose state changes; the table of all prompts stands in the notes."""
    pairs = [scored(checkpoint, questions, rng, prompt) for prompt in (before, after)]
    states = [[is_resolved(one.complete) for one in prompt] for prompt in pairs]
    changes = [new - old for old, new in zip(*states, strict=True) if new != old]
    for row in prompt_table(checkpoint, questions, rng):
        evidence.note(row)
    evidence.expect("questions whose state changes", len(changes), at_least=1)
    evidence.sign_test("questions resolved anew", changes.count(1), len(changes), alpha=ALPHA)


def prompt_table(checkpoint, questions, rng):
    """A sentence for each prompt format and number of examples: resolved, mean PMA and accuracy, in both readings."""
    from empirical.questions import FORMATS

    for prompt in ((style, examples, "draw 1") for style in FORMATS for examples in (0, 1)):
        one = scored(checkpoint, questions, rng, prompt)
        yield f"{prompt[0]}, {prompt[1]} examples: " + "; ".join(
            f"{name}: {mean(is_resolved(p) for p in read):.1%} resolved, mean PMA {mean(map(sum, read)):.3g}, "
            f"accuracy {mean(p.index(max(p)) == q.answer for p, q in zip(read, one, strict=True)):.1%}"
            for name, read in (("complete strings", [q.complete for q in one]), ("prefixes", [q.prefix for q in one]))
        )
