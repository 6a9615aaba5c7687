"""What softplus attention with re-weighting is said to retrieve, to attend to, and to discover (Gao, Spratling, 2025).

What the paper says. A passkey hidden in the context is found more often than with softmax, also beyond the training
length, attention sinks shrink, and models with it recover Newton's law from orbits (version 5). All of it needs models
far larger than ours.

Notation. 1x is the training length. The importance of a key is the mean weight that the queries which see it give it;
a *sink* is a first key of importance above 0.3 (theory.sinks.measures).

Scope. The checks measure what small models give and what the statements presuppose, and then stay undecided.
"""

import numpy as np

from reports.claim import Claim

PAPER = "gao2025softplus"

passkey = Claim(
    paper=PAPER,
    slug="passkey-beyond-the-training-length",
    where="Table of passkey retrieval",
    says="LSSAR retrieves a passkey more often than softmax at the training length (86 % against 64 %) and beyond it, "
    "where softmax never does (45 % at 1.5x, 20 % at 4x).",
    formula=r"\text{acc}_{15}(c) > \text{acc}_{\text{softmax}}(c), \quad c = 1\times, \dots, 4\times",
    gap="Our models do not learn to retrieve: what they gain from having seen a random word is in the notes.",
)


@passkey.check("experiment", controls={"models without training": {"steps": 0}})
def test_spelling_a_word_of_the_context_again(evidence, paper_rng, scale, *, steps=None):
    """Random words of 16 letters at both ends of the context: the loss a letter that the first one saves the second."""
    from dataclasses import replace

    from empirical.operators.softplus_attention import SETTINGS, copying, letter_entropy, losses, variant

    seed = paper_rng.seed("training")
    setting = SETTINGS[scale] if steps is None else replace(SETTINGS[scale], steps=steps)
    gains = {}
    for name in ("softmax", "LSSAR p=15"):
        trained = losses(setting, variant(name, setting), seed)[:, 0]
        evidence.expect(
            "loss at 1x, so that something is learnt",
            trained,
            less_than=("entropy of a byte", letter_entropy()),
            unit="nats",
        )
        gains[name] = copying(setting, variant(name, setting), seed).mean(axis=0)
        evidence.note(
            f"{name}: saved at 1x, 2x, 4x, ...: {gains[name].round(3).tolist()} nats a letter of ln 26 = 3.26."
        )
    if min(gain[0] for gain in gains.values()) < np.log(26) / 2:
        evidence.inconclusive(
            needs="models that retrieve at 1x (half of ln 26 nats a letter or more), as the paper's 124M do"
        )
    for column in range(1, 3):
        evidence.expect(
            f"saved at {2**column}x",
            gains["softmax"][column],
            less_than=("LSSAR", gains["LSSAR p=15"][column]),
            unit="nats",
        )


shrunk = Claim(
    paper=PAPER,
    slug="sinks-shrink",
    where="Abstract of version 5 (mitigating the attention sink phenomenon)",
    says="Attention sinks of trained softmax models are weaker in models with LSSAR, p = 15.",
    formula=r"\alpha_1^{15} < \alpha_1^{\text{softmax}}, \quad \alpha_1 = \frac{1}{n} \sum_t a_{t1}",
    gap="Our softmax models have no sink to shrink. Re-weighting a given row raises a sink that is its largest weight "
    "(see reweighting-sharpens), so that a reduction would have to be learnt.",
)


def first_key(setting, name, seed):
    """(seeds, layers): importance of the first key at 1x, mean over heads and texts of the library."""
    import torch

    from empirical.data import excerpts
    from empirical.operators.softplus_attention import text_of, train, variant
    from empirical.sinks.observe import observe
    from theory.sinks.measures import importance

    models = train(setting, variant(name, setting), seed)
    draw = torch.Generator().manual_seed(seed)
    text = excerpts(text_of("test"), (setting.excerpts,), setting.length, draw)
    text = text.to(next(iter(models.tensors.values())).device)
    found = [[] for _ in range(len(models))]
    for at, seen in enumerate(found):
        see = lambda layer, seen=seen: seen.append(float(importance(layer.weights)[..., 0].mean()))  # noqa: E731
        observe(models.one(at), text, see)
    return np.array(found)


@shrunk.check("experiment", controls={"models without training": {"steps": 0}})
def test_the_first_key_gets_less_attention_with_re_weighting(evidence, paper_rng, scale, *, steps=None):
    """Mean importance of the first key in the layer where it is largest, if softmax models have a sink at all."""
    from dataclasses import replace

    from empirical.operators.softplus_attention import SETTINGS, curves, letter_entropy
    from theory.sinks.measures import EPSILON

    seed = paper_rng.seed("training")
    setting = SETTINGS[scale] if steps is None else replace(SETTINGS[scale], steps=steps)
    largest = {}
    for name in ("softmax", "LSSAR p=15"):
        loss = curves(name, scale, seed, steps=steps)[:, 0]
        evidence.expect(
            "loss at 1x, so that something is learnt",
            loss,
            less_than=("entropy of a byte", letter_entropy()),
            unit="nats",
        )
        largest[name] = first_key(setting, name, seed).mean(axis=0).max()
        evidence.note(f"{name}: importance of the first key {largest[name]:.3f}.")
    uniform = sum(1 / t for t in range(1, setting.length + 1)) / setting.length
    evidence.note(f"Uniform attention gives it {uniform:.3f}.")
    if largest["softmax"] < EPSILON:
        evidence.inconclusive(needs="softmax models that have a sink: a first key of importance 0.3 or more")
    evidence.expect("importance with LSSAR", largest["LSSAR p=15"], less_than=("with softmax", largest["softmax"]))


newton = Claim(
    paper=PAPER,
    slug="recovers-newtons-law",
    where="Abstract of version 5",
    says="Trained on orbits, a model with LSSAR lets symbolic regression recover Newton's law of gravitation.",
    formula=r"F \propto \frac{m_1 m_2}{r^2}",
    gap="The paper's model (109M), its trajectories and its code were not to be had. Only the premise is checked.",
)


def orbit(exponent, steps=4000, step=2e-3):
    """(steps, 2) positions of a body under the central force r^exponent, by leapfrog from an eccentric start."""
    place, speed, found = np.array([1.0, 0.0]), np.array([0.0, 0.8]), []
    for _ in range(steps):
        speed = speed - step * place * (place @ place) ** ((exponent - 1) / 2)
        place = place + step * speed
        found.append(place)
    return np.array(found)


@newton.check("experiment", controls={"orbits under a force 1/r": {"exponent": -1}})
def test_orbits_determine_the_law(evidence, *, exponent=-2):
    """Second differences of sampled positions, fitted as a power of the distance: nearest to -2."""
    positions = orbit(exponent)
    force = np.linalg.norm(positions[2:] - 2 * positions[1:-1] + positions[:-2], axis=1)
    distance = np.linalg.norm(positions[1:-1], axis=1)
    slope = np.polyfit(np.log(distance), np.log(force), 1)[0]
    evidence.expect("power of the distance in the orbits", slope, within=(-2.5, -1.5))
    evidence.inconclusive(
        needs="the paper's 109M model with LSSAR trained on orbits, its rivals, and symbolic regression"
    )
