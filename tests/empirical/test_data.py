"""The data that ships with packages."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from empirical import data  # noqa: E402


def test_the_parts_of_the_digits_are_disjoint_and_together_all():
    parts = [data.digits(part)[0].flatten(1) for part in ("train", "test")]
    assert [len(part) for part in parts] == [1347, 450]
    assert len(torch.cat(parts).unique(dim=0)) == 1797
    assert parts[0].min() == 0
    assert parts[0].max() == 1


def test_patches_are_the_squares_of_the_image_row_by_row():
    image = torch.arange(16.0).view(4, 4)
    assert data.patches(image).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert data.patches(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 16, 4)


def test_a_patch_that_does_not_tile_the_image_is_refused():
    with pytest.raises(ValueError, match="patches of 3 do not tile"):
        data.patches(torch.zeros(8, 8), 3)


def test_the_text_is_real_and_its_parts_have_no_file_in_common():
    train, test = data.library_text("train"), data.library_text("test")
    assert len(train) > 5 * len(test) > 1_000_000
    assert b"def " in bytes(test[:100_000].numpy())


def test_excerpts_are_consecutive_bytes_of_the_text():
    text = torch.arange(200, dtype=torch.uint8)
    drawn = data.excerpts(text, (3, 4), 10, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 4, 10)
    assert (drawn.diff(dim=-1) == 1).all()
    assert len(drawn[..., 0].unique()) > 6


def test_an_excerpt_longer_than_the_text_is_refused():
    with pytest.raises(ValueError, match="has 5 bytes, an excerpt 6"):
        data.excerpts(torch.zeros(5, dtype=torch.uint8), (1,), 6, torch.Generator())
