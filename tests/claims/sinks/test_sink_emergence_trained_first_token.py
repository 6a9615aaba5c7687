"""Key, value and angle of the sink in small models, and what removing it costs (Gu et al., ICLR 2025, section 3.1, 7).

What the paper says. The sink's value is small, its key is too; it draws attention by its angle to the queries. It
stores attention that is not needed and does not contribute to what the layer computes, as a bias of the keys would.

Notation. As in test_sink_emergence_trained.py. Ratios are the length of <s>'s value or key over the mean of the others;
the angle is the mean cosine of queries with <s>'s key, less that with the other keys they see. Losses are nats a token.

Scope. Models of that file after 320 steps: the value shrinks after the sink is there.
"""

from functools import cache

from reports.claim import Claim

PAPER = "gu2024attentionsink"
LONG = 320


@cache
def setting(**changes):
    from empirical.sinks.sink_emergence import Setting

    return Setting(**{"steps": LONG, **changes})


def measured(seed, name, **changes):
    """(seeds,) of the only head."""
    from empirical.sinks import sink_emergence as toy

    return toy.by_seed(getattr(toy.inside(setting(**changes), seed), name))


def in_words(found):
    return f"{found.min():.2f} to {found.max():.2f}"


value = Claim(
    paper=PAPER,
    slug="trained-short-value",
    where="Section 3.1, Figure 2",
    says="The sink's value is shorter than the other values.",
    formula=r"\|v_1\| < \mathrm{mean}_j \|v_j\|",
    gap="In short trainings the sink comes first, and its value shrinks later.",
)


@value.check("experiment", controls={"untrained": {"steps": 0}, "a sigmoid's <s>": {"variant": "sigmoid"}})
def test_the_value_of_the_sink_is_short(evidence, paper_rng, *, steps=LONG, variant="softmax"):
    """Ratios, trained and untrained: every trained one is below 1 and below every untrained one."""
    seed = paper_rng.seed("backcopy")
    before, after = measured(seed, "values", steps=0), measured(seed, "values", steps=steps, variant=variant)
    evidence.note(f"Ratios {in_words(after)}; untrained {in_words(before)}; after 160 steps "
                  f"{in_words(measured(seed, 'values', steps=160))}.")  # fmt: skip
    evidence.expect("ratio", after, less_than=1)
    evidence.expect("largest ratio", after.max(), less_than=("least of untrained models", before.min()))


key = Claim(
    paper=PAPER,
    slug="trained-short-key",
    where="Section 3.1, Figure 2",
    says="The sink's key is shorter than the other keys.",
    formula=r"\|k_1\| < \mathrm{mean}_j \|k_j\|",
    gap="In the toy it is about twice as long: a short key is no condition of a sink.",
)


@key.check("experiment", controls={"untrained": {"steps": 0}})
def test_the_length_of_the_sinks_key(evidence, paper_rng, *, steps=LONG):
    """Ratios, noted: the toy's keys say nothing of those of large models."""
    seed = paper_rng.seed("backcopy")
    evidence.note(f"Ratios {in_words(measured(seed, 'keys', steps=steps))}.")
    evidence.inconclusive(needs="the paper's checkpoints, LLaMA3-8B among them: see the claims on a checkpoint")


hidden = Claim(
    paper=PAPER,
    slug="trained-large-hidden-state",
    where="Section 3.1",
    says="The first token's hidden state is much longer than the others'.",
    formula=r"\|h_1\| \gg \|h_j\|",
    gap="The toy's only layer gets the embedding.",
)


@hidden.check("experiment", controls={"untrained": {"steps": 0}})
def test_the_length_of_the_sinks_hidden_state(evidence, paper_rng, *, steps=LONG):
    """Largest magnitudes over the median, noted."""
    from empirical.sinks import sink_emergence as toy

    found = toy.inside(setting(steps=steps), paper_rng.seed("backcopy"))
    ratio = found.largest / found.median[..., None]
    first, others = ratio[..., 0], ratio[..., 1:].mean(-1)
    evidence.note(f"Largest over median magnitude: of <s> {in_words(first)}, of other tokens {in_words(others)}.")
    evidence.inconclusive(needs="models of several layers with massive activations: see the pre-trained ones")


angle = Claim(
    paper=PAPER,
    slug="trained-key-angle",
    where="Section 3.1",
    says="The sink's key is nearer in angle to the queries than the other keys are.",
    formula=r"\mathrm{mean}_t \bigl[ \cos(q_t, k_1) - \mathrm{mean}_j \cos(q_t, k_j) \bigr] > 0.1",
    gap="The 0.1 is that of the pre-trained models' claim. The key's length, here larger, helps: see the note.",
)


@angle.check("experiment", controls={"untrained": {"steps": 0}, "without <s>": {"steps": 160, "starts": ()}})
def test_the_key_of_the_sink_is_near_in_angle(evidence, paper_rng, *, steps=LONG, starts=(0,)):
    """The difference of cosines in every seed; the note has attention from cosines alone."""
    from empirical.sinks import sink_emergence as toy

    seed = paper_rng.seed("backcopy")
    evidence.expect("difference of cosines", measured(seed, "angle", steps=steps, starts=starts), at_least=0.1)
    models, tokens = toy.train(setting(), seed, toy.SEEDS), toy.held_out(setting(), toy.SHOWN, seed)
    alone = toy.insides(toy.with_equal_keys(models), tokens)
    trained, fresh = toy.inside(setting(), seed), toy.inside(setting(steps=0), seed)
    importance = [toy.by_seed(one.importance[..., 0]) for one in (trained, alone, fresh)]
    evidence.note(
        f"Importance of <s> {in_words(importance[0])}; where its key is made as long as others "
        f"{in_words(importance[1])}, untrained {in_words(importance[2])}."
    )


# -- removing the sink -------------------------------------------------------------------------------------------------

removal = Claim(
    paper=PAPER,
    slug="trained-sink-contributes-nothing",
    where="Sections 3.1 and 7.1",
    says="The sink stores attention and does not contribute to the values that are mixed.",
    formula=r"v_1 := 0 \;\Rightarrow\; \Delta L = 0",
    gap="The toy's value is shorter than others, but not 0; longer training makes it shorter still.",
    repair="It contributes less by its value than by the attention it holds: zeroing the value costs less than barring "
    "the token.",
)


def without_attention(A):
    """<s> barred: the others share its attention; a query that sees <s> alone gets nothing."""
    rest = A.clone()
    rest[..., 0] = 0
    return rest / rest.sum(-1, keepdim=True).clamp(min=1e-9)


def without_value(A):
    """The value of <s> set to 0."""
    rest = A.clone()
    rest[..., 0] = 0
    return rest


def unchanged(A):
    return A


def costs(seed, edit):
    """(seeds,) rise of the loss, of the tokens that see more than <s>."""
    from empirical.sinks import sink_emergence as toy
    from empirical.sinks.interventions import edited, mean_losses

    models, tokens = toy.train(setting(), seed, toy.SEEDS), toy.held_out(setting(), toy.SHOWN, seed)
    rise = mean_losses(edited(models, edit), tokens, since=2) - mean_losses(models, tokens, since=2)
    return rise.double().numpy()


@removal.refutation("experiment", controls={"nothing changed": {"edit": unchanged}})
def test_zeroing_the_sinks_value_costs(evidence, paper_rng, *, edit=without_value):
    """Rise of the loss on held-out sequences, in every seed."""
    seed = paper_rng.seed("backcopy")
    found, barred = costs(seed, edit), costs(seed, without_attention)
    evidence.note(f"Zeroing the value costs {in_words(found)} nats a token, barring the token {in_words(barred)}.")
    evidence.expect("least rise over seeds, negated", -found.min(), less_than=0, unit="nats")
    evidence.counterexample("Models with a sink on <s>, its value set to 0", rise=found.mean(), barred=barred.mean())


@removal.check("experiment", controls={"the same edit twice": {"value": without_attention}})
def test_the_attention_it_holds_is_worth_more_than_its_value(evidence, paper_rng, *, value=without_value):
    """Rises of the loss, paired by seed."""
    seed = paper_rng.seed("backcopy")
    evidence.expect("zeroing less barring", costs(seed, value) - costs(seed, without_attention), less_than=0)
