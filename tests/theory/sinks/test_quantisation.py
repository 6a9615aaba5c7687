"""Rounding and pruning by hand, in numpy and in torch."""

import numpy as np
import pytest

from theory.sinks.quantisation import fine_step_error, prune, relative_error, round_to_nearest, step_size

x = np.array([[3.0, -1.1, 0.4], [0.0, 0.0, 0.0], [-0.3, 0.15, 0.2]])


def test_steps_of_a_matrix_and_of_its_rows():
    """Three bits have the levels -3..3."""
    assert step_size(x, 3) == 1
    np.testing.assert_allclose(step_size(x, 3, by_row=True), [[1], [0], [0.1]])


def test_weights_go_to_the_nearest_level():
    np.testing.assert_array_equal(round_to_nearest(x, 3), [[3, -1, 0], [0, 0, 0], [0, 0, 0]])


def test_rows_may_have_levels_of_their_own_and_a_zero_row_stays_zero():
    rounded = round_to_nearest(x, 3, by_row=True)
    np.testing.assert_allclose(rounded[2], [-0.3, 0.2, 0.2], atol=0.051)
    np.testing.assert_array_equal(rounded[1], 0)


def test_the_largest_is_kept_and_no_error_exceeds_half_a_step():
    w = np.random.default_rng(0).standard_normal((16, 16))
    rounded = round_to_nearest(w, 4)
    at = abs(w).argmax()
    assert rounded.flat[at] == pytest.approx(w.flat[at])
    assert abs(rounded - w).max() <= step_size(w, 4) / 2 * (1 + 1e-12)


def test_one_bit_is_refused():
    with pytest.raises(ValueError, match="2 or more"):
        step_size(x, 1)


def test_relative_errors_by_hand():
    assert relative_error(np.array([3.0, 4.0]), np.array([3.0, 3.0])) == pytest.approx(0.2)
    assert fine_step_error(12**0.5, 2.0) == 0.5


def test_pruning_takes_the_smallest_and_ties_go_together():
    w = np.array([4.0, -1.0, 2.0, 3.0])
    np.testing.assert_array_equal(prune(w, 0.5), [4, 0, 0, 3])
    np.testing.assert_array_equal(prune(w, 0.2), w)
    np.testing.assert_array_equal(prune(np.ones(4), 0.5), np.zeros(4))


def test_torch_gets_its_own_kind_back():
    torch = pytest.importorskip("torch")
    w = torch.tensor(x, dtype=torch.float32)
    assert round_to_nearest(w, 3).dtype == torch.float32
    torch.testing.assert_close(round_to_nearest(w, 3), torch.tensor(round_to_nearest(x, 3), dtype=torch.float32))
    torch.testing.assert_close(prune(w, 0.5), torch.tensor(prune(x, 0.5), dtype=torch.float32))
