"""Sinks of small byte models on real text, with six kinds of attention (Gu et al., ICLR 2025, sections 3, 4 and 7).

What the paper says. Sinks emerge in language models as the loss falls. A learned value leaves them, a learned key
takes them over, and attention without a norm has none.

Notation. As in test_sink_emergence_trained.py: shares are of heads and sequences, proxy shares of rows over their sum.
A *gate* multiplies what a head returns (An et al., 2025); elu is the kernel elu(q) + 1 times elu(k) + 1.

Scope. Bytes of the source of Python's library, <s> in front, 32 bytes, one layer of 4 heads, width 32, strictly causal,
300 steps of 16 excerpts, 5 seeds; four seconds for a kind. One seed in five may have no sink yet.
"""

from functools import cache

from reports.claim import Claim

PAPER = "gu2024attentionsink"
NONE = 0.01
FEWEST = 4
STEPS = 300
LENGTHS = (0, 30, 80, STEPS)
KINDS = ("softmax", "value bias", "key bias", "gate", "sigmoid", "elu", "elu, normalised")


@cache
def setting(variant="softmax", steps=STEPS):
    from empirical.sinks.sink_emergence import Setting

    return Setting(text=True, heads=4, batch=16, variant=variant, steps=steps)


def inside(seed, **changes):
    from empirical.sinks import sink_emergence as toy

    return toy.inside(setting(**changes), seed)


def shares(seed, **changes):
    """(seeds,) share of sinks on <s>, of the weights as they are."""
    from empirical.sinks import sink_emergence as toy

    return toy.by_seed(inside(seed, **changes).sinks[..., 0])


def proxies(seed, **changes):
    """(seeds,) share of sinks on <s>, of rows over their sum."""
    from empirical.sinks import sink_emergence as toy

    return toy.by_seed(inside(seed, **changes).proxy)


def losses(seed, **changes):
    """(seeds,) loss on other files, nats a byte."""
    from empirical.sinks import sink_emergence as toy

    return toy.held_out_losses(setting(**changes), seed)


def in_words(found):
    return f"{found.min():.2f} to {found.max():.2f}, mean {found.mean():.2f}"


emergence = Claim(
    paper=PAPER,
    slug="text-sink-emerges",
    where="Abstract, Sections 3 and 4, Figure 4",
    says="Also a small model of real text has no sink untrained, and has sinks after training.",
    formula=r"\mathrm{Sink}_1^{0.3}(0) = 0, \quad \mathrm{Sink}_1^{0.3}(\text{end}) > 0.01",
    gap="Strictly causal, with <s>, 32 bytes. With the usual mask or without <s> such models have hardly any sink; "
    "on random bytes it has fewer than on text.",
)


@emergence.check("experiment", controls={"untrained": {"steps": 0}, "elu without a norm": {"variant": "elu"}})
def test_byte_models_grow_sinks(evidence, paper_rng, *, steps=STEPS, variant="softmax"):
    """Proxy shares, which are shares for softmax: more than 1 % in four of five seeds. Figures: training, and kinds."""
    from empirical.sinks import sink_emergence as toy

    seed = paper_rng.seed("backcopy")
    chosen = setting(variant, steps)
    drawn = toy.insides(toy.train(chosen, seed, toy.SEEDS), toy.random_tokens(chosen, toy.SHOWN, seed))
    found = proxies(seed, steps=steps, variant=variant)
    evidence.note(f"Share on text {in_words(found)}; on random bytes {in_words(toy.by_seed(drawn.proxy))}.")
    evidence.expect("share before", shares(seed, steps=0), at_most=0)
    evidence.expect("seeds with sinks", int((found > NONE).sum()), at_least=FEWEST)
    evidence.figure("Byte models along the training", figure_of_lengths(seed), "Lines are seeds.")
    evidence.figure("Sinks on <s>, by kind of attention", figure_of_kinds(seed), "Points are seeds.")


def figure_of_lengths(seed):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    outliers = [
        inside(seed, steps=steps).largest.amax((1, 2)) / inside(seed, steps=steps).median[:, 0] for steps in LENGTHS
    ]
    rows = {
        "share of sinks on <s>": [shares(seed, steps=steps) for steps in LENGTHS],
        "largest over median magnitude": [one.numpy() for one in outliers],
        "loss on other files, nats a byte": [losses(seed, steps=steps) for steps in LENGTHS],
    }
    for panel, (name, values) in zip(panels, rows.items(), strict=True):
        panel.plot(LENGTHS, values)
        panel.set_xlabel("steps")
        panel.set_ylabel(name)
        panel.set_ylim(bottom=0)
    return figure


def figure_of_kinds(seed):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for i, kind in enumerate(KINDS):
        left.plot(proxies(seed, variant=kind), [i] * 5, "o", color="tab:blue", alpha=0.6)
        right.plot(losses(seed, variant=kind), [i] * 5, "o", color="tab:red", alpha=0.6)
    left.set_yticks(range(len(KINDS)), KINDS)
    left.invert_yaxis()
    left.set_xlabel("share of sinks on <s>, rows over their sum")
    right.set_xlabel("loss on other files, nats a byte")
    return figure


unnormalised = Claim(
    paper=PAPER,
    slug="text-unnormalised",
    where="Section 7.2, Table 6",
    says="On text, sigmoid attention and a kernel without a norm have fewer sinks by the paper's score, less than half "
    "of softmax's.",
    formula=r"\mathrm{Sink}_1^*(\sigma), \mathrm{Sink}_1^*(\mathrm{elu}) < \tfrac{1}{2} \mathrm{Sink}_1",
    gap="Means over seeds. The paper has a fortieth; a half is what scattered seeds can show. Sums of rows are 5 for "
    "the sigmoid and above 100 for elu: scores of the weights as they are say nothing here. Both lose to softmax.",
)


@unnormalised.check(
    "experiment", controls={"value bias": {"kinds": ("value bias",)}, "softmax": {"kinds": ("softmax",)}}
)
def test_without_a_norm_there_are_fewer_sinks(evidence, paper_rng, *, kinds=("sigmoid", "elu")):
    """Mean proxy shares against half of softmax's."""
    seed = paper_rng.seed("backcopy")
    limit = shares(seed).mean() / 2
    for kind in kinds:
        found = proxies(seed, variant=kind)
        loss = losses(seed, variant=kind).mean() - losses(seed).mean()
        evidence.note(f"{kind}: {in_words(found)}; loss {loss:+.2f} nats a byte over softmax's.")
        evidence.expect("mean share", found.mean(), less_than=("half of softmax's", limit))


normalised = Claim(
    paper=PAPER,
    slug="text-normalised-kernel",
    where="Section 7.2, Table 6",
    says="The same kernel has sinks with a norm where it has none without.",
    formula=r"\mathrm{Sink}_1(\mathrm{elu} / \Sigma) \gg \mathrm{Sink}_1^*(\mathrm{elu})",
    gap="The paper's 54 % against 1 % do not show at this size: neither has sinks.",
)


@normalised.check("experiment", controls={"without a norm": {"kind": "elu"}})
def test_the_norm_of_a_kernel(evidence, paper_rng, *, kind="elu, normalised"):
    """Shares with and without a norm."""
    seed = paper_rng.seed("backcopy")
    found, loss = proxies(seed, variant=kind), losses(seed, variant=kind).mean() - losses(seed, variant="elu").mean()
    evidence.note(f"With a norm {in_words(found)}, without {in_words(proxies(seed, variant='elu'))}.")
    evidence.note(f"The norm changes the loss by {loss:+.2f} nats a byte, to {losses(seed, variant=kind).mean():.2f}.")
    evidence.inconclusive(needs="longer training: with the norm the kernel has no sinks yet either")


biases = Claim(
    paper=PAPER,
    slug="text-biases",
    where="Section 7.1, Table 4",
    says="On text a learned value leaves the first token's sink, and a learned key takes it over.",
    formula=r"\mathrm{Sink}_1(v^*) \approx \mathrm{Sink}_1, \quad \mathrm{Sink}_1(k^*) \approx 0",
    gap="<s> and k* compete in a short training, and the seed decides.",
)


@biases.check("experiment", controls={"elu without a norm": {"kinds": ("elu", "elu")}})
def test_biases_on_text(evidence, paper_rng, *, kinds=("value bias", "key bias")):
    """Shares on <s> and on k*."""
    from empirical.sinks import sink_emergence as toy

    seed = paper_rng.seed("backcopy")
    value, key = (proxies(seed, variant=kind) for kind in kinds)
    star = toy.by_seed(inside(seed, variant=kinds[1]).star)
    evidence.note(f"On <s>: softmax {in_words(shares(seed))}; with v* {in_words(value)}; with k* {in_words(key)}.")
    evidence.note(f"On k*: {in_words(star)}.")
    evidence.inconclusive(needs="longer training, or text without <s>: see the pre-trained models")
