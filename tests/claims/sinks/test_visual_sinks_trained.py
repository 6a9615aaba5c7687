"""A second sink in small trained models: is it needed, what does it add, what if it gives away? (VAR, Kang et al. 2025)

What the paper says. Visual sink tokens get much attention, yet removing them does not impair the model, while removing
as many other visual tokens does; what they contribute to the output is about ten times smaller than what others do.
Redistributing attention without a choice of heads destroys the model.

Notation. Tokens 5 to 14 stand for the image, the second <s> at 9 for its sink, the first <s> for BOS; queries from 15
on are the text, *idle* those with nothing to copy. A *cost* is the rise of their loss, nats a token. A contribution is
attention times |W_O v|.

Scope. Bigram-Backcopy with two <s>, one layer of one head, width 32, 600 steps, four seeds. A stand-in for mechanisms:
there is no image, and nothing in it that a text query needs.
"""

import numpy as np

from reports.claim import Claim

PAPER = "kang2025visual"
BOS, SINK = 0, 9


def array(tensor):
    return tensor.cpu().numpy()


def cost(seed, *tokens):
    """(seeds,)."""
    from empirical.sinks.visual_sinks import cost_of_removing

    return array(cost_of_removing(seed, *tokens))


def cost_of_content(seed):
    """(seeds,): of one token that a text query looks back at, mean over its places."""
    from empirical.sinks.visual_sinks import NEEDED

    return np.mean([cost(seed, token) for token in NEEDED], axis=0)


removal = Claim(
    paper=PAPER,
    slug="removing-visual-sinks-is-free",
    where="Abstract; Figure 3b",
    says="Removing a visual sink, however much attention it gets, costs little; removing as many tokens of content "
    "costs more.",
    formula=r"\Delta L(\text{visual sink}) \ll \Delta L(\text{random visual tokens})",
    gap="It holds as long as the text sink stays, as BOS does in the paper: removing both costs several tokens of "
    "content. Content stands for what some query needs; other ordinary tokens are as free as the sink.",
)


@removal.check(
    "experiment",
    controls={"both sinks": {"tokens": (BOS, SINK)}, "a token of content": {"tokens": (20,)}},
)
def test_the_second_sink_costs_less_than_half_of_a_content_token(evidence, paper_rng, *, tokens=(SINK,)):
    """Idle queries give it twice what they give any token but the first, each seed; costs are means over seeds."""
    from empirical.sinks.visual_sinks import attended

    seed = paper_rng.seed("training")
    idle, content, found = attended(seed).idle, cost_of_content(seed), cost(seed, *tokens)
    other = np.delete(idle, (BOS, SINK), axis=1).max(axis=1)
    evidence.note(f"Idle queries give the second <s> {idle[:, SINK].min():.0%} to {idle[:, SINK].max():.0%}.")
    evidence.expect("attention of idle queries over that to another token", idle[:, SINK] / other, at_least=2)
    both = cost(seed, BOS, SINK).mean() / content.mean()
    evidence.note(
        f"Mean costs: removed {found.mean():.4f}, content {content.mean():.4f}; both sinks {both:.1f} contents."
    )
    evidence.figure("Cost of removing tokens", costs_figure(seed), "Points are seeds.")
    evidence.expect("cost over that of a content token", found.mean() / content.mean(), at_most=0.5)


def costs_figure(seed):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.subplots()
    rows = {
        "second sink": cost(seed, SINK),
        "first sink": cost(seed, BOS),
        "content": cost_of_content(seed),
        "both sinks": cost(seed, BOS, SINK),
    }
    for i, values in enumerate(rows.values()):
        axes.plot(values, [i] * len(values), "o", color="tab:blue", alpha=0.6)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xscale("symlog", linthresh=0.01)
    axes.set_xlabel("rise of the loss, nats a token")
    return figure


contribution = Claim(
    paper=PAPER,
    slug="sinks-contribute-little",
    where="Section 4, Figure 3c",
    says="Although sink tokens get much attention, what they add to the output is smaller than what other tokens add.",
    formula=r"\|\alpha_{ij} x_j W_{OV}\|_{j \in \text{sinks}} \ll \|\alpha_{ij} x_j W_{OV}\|_{j \notin \text{sinks}}",
    gap="The paper's factor of ten is LLaVA's; a small model need not have it. |W_O v| is compared, not its direction.",
    repair="It is so per unit of attention, as its value is shorter; in all it may add more than any other token.",
)


def in_all(found):
    """Sink over the largest content token, by contribution, (seeds,)."""
    from empirical.sinks.visual_sinks import NEEDED

    return found.contribution[:, SINK] / found.contribution[:, NEEDED.start : NEEDED.stop].max(axis=1)


def per_attention(found):
    """Sink over the mean content token, by length, (seeds,)."""
    from empirical.sinks.visual_sinks import NEEDED

    return found.length[:, SINK] / found.length[:, NEEDED.start : NEEDED.stop].mean(axis=1)


@contribution.refutation("experiment", controls={"per unit of attention": {"ratio": per_attention}})
def test_in_all_the_sink_adds_more_than_any_token_of_content(evidence, paper_rng, *, ratio=in_all):
    """Mean contribution to a text query, second sink over the largest of content, each seed."""
    from empirical.sinks.visual_sinks import attended

    found = ratio(attended(paper_rng.seed("training")))
    evidence.expect("sink over the largest content token", found, at_least=1.0)
    evidence.counterexample("contribution of the second sink over the largest other", ratios=found.round(2).tolist())


@contribution.check("experiment", controls={"in all": {"ratio": in_all}})
def test_per_unit_of_attention_the_sink_adds_less(evidence, paper_rng, *, ratio=per_attention):
    """|W_O v| of the second sink over that of content tokens, mean over the seeds; the note has the range."""
    from empirical.sinks.visual_sinks import attended

    found = ratio(attended(paper_rng.seed("training")))
    evidence.note(f"Seeds: {found.min():.2f} to {found.max():.2f}.")
    evidence.expect("sink over content", found.mean(), less_than=1.0)


selection = Claim(
    paper=PAPER,
    slug="selection-prevents-collapse",
    where="Section 5; Table 4",
    says="Redistributed in every row, the attention of sinks harms the model; in image-centric rows alone it does not.",
    formula=r"\Delta L(\text{all rows}) \gg \Delta L(\text{image-centric rows})",
    gap="Here hardly any row is image-centric, so that the choice mostly means leaving the model alone; that "
    "redistribution helps where it is made is not tested.",
)
LEAST, RHO = 0.2, 0.5


@selection.check("experiment", controls={"no choice": {"rho": 0.0, "least": 0.0}, "without rho": {"rho": 0.0}})
def test_without_a_choice_of_rows_it_costs_a_content_token_or_more(evidence, paper_rng, *, rho=RHO, least=LEAST):
    """p = 0.6 for both sinks: costs as means over the seeds, with the choice and without."""
    from empirical.sinks.visual_sinks import cost_of_redistributing

    seed = paper_rng.seed("training")
    found, everywhere = (array(cost_of_redistributing(seed, 0.6, *rule)) for rule in ((rho, least), (0.0, 0.0)))
    evidence.note(f"Mean cost {found.mean():.4f} with the choice, {everywhere.mean():.4f} in all rows.")
    evidence.expect(
        "cost in all rows over a content token's", everywhere.mean() / cost_of_content(seed).mean(), at_least=1
    )
    evidence.expect("cost with the choice over that in all rows", found.mean() / everywhere.mean(), at_most=0.1)
