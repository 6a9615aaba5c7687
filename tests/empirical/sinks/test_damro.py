"""Images with planted outliers, and readers of them."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from empirical.sinks import damro  # noqa: E402
from empirical.training import Models, initial  # noqa: E402


@pytest.fixture
def shown():
    return damro.images(50, torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def readers():
    return Models(*initial(damro.Reader, 1, 2))


def test_the_class_token_finds_the_planted_outliers(shown):
    top = damro.class_map(shown.tokens).topk(damro.OUTLIERS).indices
    assert torch.equal(top.sort(1).values, shown.outliers.sort(1).values)


def test_outliers_tell_of_the_scene(shown):
    told = damro.picked(shown.tokens, shown.outliers)[:, :, damro.SCENE].mean(1) > 0
    assert torch.equal(told, shown.common[:, 0])
    assert torch.equal(shown.common.sum(1), torch.full((50,), damro.OBJECTS // 2))


def test_exchanged_outliers_tell_of_the_other_scene_and_nothing_else(shown):
    changed = damro.other_scene(shown)
    before, after = (damro.picked(one, shown.outliers)[:, :, damro.SCENE] for one in (shown.tokens, changed))
    assert torch.equal(before, -after)
    assert int((changed != shown.tokens).sum()) == 50 * damro.OUTLIERS


def test_removed_tokens_are_background(shown):
    tokens = damro.without(shown, shown.outliers, torch.Generator().manual_seed(4))
    assert damro.picked(tokens, shown.outliers).abs().max() < 6 * damro.NOISE
    assert int((tokens != shown.tokens).any(-1).sum()) == 50 * damro.OUTLIERS


def test_other_tokens_are_no_outliers(shown):
    places = damro.others(shown, torch.Generator().manual_seed(5))
    assert not (places[:, :, None] == shown.outliers[:, None]).any()
    assert places.shape == (50, damro.OUTLIERS)


def test_every_image_is_asked_every_question(readers, shown):
    logits = damro.logits(readers, shown.tokens)
    assert logits.shape == (2, 50, damro.OBJECTS, 2)
    torch.testing.assert_close(logits[:, 7, 3], readers(shown.tokens[7:8], torch.tensor([3]))[:, 0])


def test_a_reader_sees_tokens_and_its_question(readers, shown):
    maps = damro.reader_map(readers, shown.tokens[:3])
    assert maps.shape == (2, 3, damro.OBJECTS, damro.TOKENS)
    assert (maps.sum(-1) < 1).all()


def test_yes_is_the_likelier_answer_and_the_cut_off_protects_a_sure_one():
    full = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    second = torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    assert damro.says_yes(full).tolist() == [True, True]
    assert damro.says_yes(full, second, alpha=1.0).tolist() == [False, True]


def test_the_order_of_a_worked_example():
    score = torch.tensor([[[3.0, 1.0, 2.0, 1.0]]])
    there = torch.tensor([[True, True, False, False]])
    assert damro.orders(score, there, ~there).tolist() == [(1 + 1 + 0.5 + 0) / 4]
