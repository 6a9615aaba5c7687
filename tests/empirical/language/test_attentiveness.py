"""The task of mixed styles, and the decoder that learns it."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from empirical.language import attentiveness as task  # noqa: E402
from empirical.transformer import Decoder  # noqa: E402


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def parts(tokens):
    """(shown, answers, form of the answer, whether choices are listed) of documents."""
    pairs = tokens.unflatten(1, (task.PAIRS, task.PAIR))
    return pairs[..., :2], pairs[..., 3], pairs[..., 3] % task.FORMS, pairs[..., 0] < task.CONCEPTS * task.FORMS


def test_documents_have_the_declared_shares():
    _, _, form, listed = parts(task.documents(20_000, generator()))
    assert float((~listed).double().mean()) == pytest.approx(task.UNLISTED, abs=0.01)
    assert float((form == 0)[listed].double().mean()) == pytest.approx(float(task.bayes_mass(0)), abs=0.015)
    assert float((form == 0)[~listed].double().mean()) == pytest.approx(float(task.BAYES_UNLISTED), abs=0.02)


def test_answers_belong_to_a_concept_of_their_question():
    shown, answers, _, listed = parts(task.documents(500, generator()))
    concepts = torch.where(listed[..., None], shown // task.FORMS, shown - task.CONCEPTS * task.FORMS)
    assert bool((concepts == (answers // task.FORMS)[..., None]).any(-1).all())
    assert bool((concepts[..., 0] != concepts[..., 1]).all())


@pytest.mark.parametrize(("shared", "expected"), [(True, float(task.bayes_mass(1))), (False, 0.5)])
def test_a_verbatim_pair_tells_on_the_next_only_if_the_style_is_shared(shared, expected):
    _, _, form, listed = parts(task.documents(40_000, generator(), shared=shared))
    told = listed[:, 0] & listed[:, 1] & (form[:, 0] == 0)
    assert float((form[:, 1] == 0)[told].double().mean()) == pytest.approx(expected, abs=0.015)


def test_prompts_with_and_without_examples_ask_the_same_question():
    bare, shot = (task.prompts(20, generator(3), examples=n) for n in (0, 2))
    assert torch.equal(bare.choices, shot.choices)
    assert torch.equal(bare.tokens, shot.tokens[:, -3:])
    assert torch.equal(bare.tokens[:, :2], bare.choices)
    assert bool((bare.tokens[:, 2] == task.ANSWER).all())


def test_prompts_can_hide_or_replace_their_choices():
    own, hidden, other = (
        task.prompts(20, generator(3), examples=0, **kind) for kind in ({}, {"listed": False}, {"shift": 1})
    )
    assert torch.equal(own.choices, hidden.choices)
    assert torch.equal(own.choices, other.choices)
    assert torch.equal(hidden.tokens[:, :2], own.choices // task.FORMS + task.CONCEPTS * task.FORMS)
    assert not bool((other.tokens[:, :2] == own.choices).any())


def test_examples_are_answered_in_the_form_that_is_asked_for():
    answer = task.prompts(20, generator(), examples=1, form=2).tokens[:, 3]
    assert set((answer % task.FORMS).tolist()) == {2}


def test_masses_are_the_probability_of_both_choices():
    model, some = Decoder(task.VOCABULARY, 12), task.prompts(5, generator(), examples=1)
    expected = model(some.tokens)[:, -1].detach().softmax(-1)
    by_hand = [float(expected[row, one] + expected[row, two]) for row, (one, two) in enumerate(some.choices)]
    assert task.masses(model, some).tolist() == pytest.approx(by_hand, rel=1e-5)


def test_training_depends_on_its_seed_alone():
    one = task.train(1, steps=3)
    torch.rand(7)
    task.train.cache_clear()
    again, other = task.train(1, steps=3), task.train(2, steps=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(one.logits.weight, other.logits.weight)


def test_training_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    task.train(3, steps=1)
    assert torch.equal(before, torch.random.get_rng_state())
