"""SALE's estimates, blocks, selection and calibration."""

import math

import numpy as np
import pytest

from theory.operators import sale
from theory.operators.attention import softmax
from theory.operators.sale_heads import synthetic


@pytest.fixture
def draw():
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape)


def test_smoothing_takes_the_mean_over_tokens_away(draw):
    x = draw(3, 20, 8) + 5
    rest, mean = sale.smoothed(x)
    np.testing.assert_allclose(rest + mean, x, atol=1e-14)
    np.testing.assert_allclose(rest.mean(-2), 0, atol=1e-14)


def test_integers_lie_in_seven_and_reach_it_once_a_group(draw):
    x = draw(2, 64, 8)
    for groups, count in ((sale.TOKEN, 64), (sale.QUERY_PAIRS, 32), (sale.KEY_LANES, 8), (sale.BLOCK, 2)):
        integers, scale = sale.quantised(x, groups)
        assert abs(integers).max() == 7
        np.testing.assert_array_equal(integers, np.round(integers))
        assert abs(scale * integers - x).max() <= scale.max() / 2 * (1 + 1e-12)
        assert [len(np.unique(one)) for one in scale[..., 0]] == [count, count]
        assert (abs(integers) == 7).any(-1).sum() >= 2 * count


def test_query_rows_eight_apart_and_key_columns_of_a_lane_share_a_scale(draw):
    x = draw(32, 4)
    pairs, lanes = sale.scales(x, sale.QUERY_PAIRS)[:, 0], sale.scales(x, sale.KEY_LANES)[:, 0]
    np.testing.assert_array_equal(pairs[:8], pairs[8:16])
    assert len(np.unique(lanes[[2, 3, 10, 11, 18, 19, 26, 27]])) == 1
    assert lanes[1] != lanes[2]


def test_a_ragged_end_has_the_scale_of_its_own_rows(draw):
    x = draw(18, 4)
    np.testing.assert_array_equal(sale.scales(x, sale.QUERY_PAIRS)[16:, 0], abs(x[16:]).max(-1) / 7)


def test_zero_rows_have_the_integer_zero():
    integers, scale = sale.quantised(np.zeros((4, 3)))
    np.testing.assert_array_equal(integers, 0)
    np.testing.assert_array_equal(scale, 0)


def test_estimates_err_by_less_than_their_bound(draw):
    q, k = draw(2, 100, 16) + 3, draw(2, 100, 16) - 1
    error = abs(sale.estimated(q, k) - sale.exact(q, k))
    bound = sale.estimate_error_bound(q, k)
    assert 0.1 < (error / bound).max() < 1
    coarse = sale.estimated(q, k, mean_term=False)
    np.testing.assert_allclose(coarse + q.mean(-2, keepdims=True) @ sale.smoothed(k)[0].mT, sale.estimated(q, k))


def test_windows_have_whole_segments_and_a_segment_at_least():
    n = 64 * 9
    left, local = sale.selectable(n, np.zeros(0)), sale.always(n, np.zeros(0))
    assert left.shape == local.shape == (9, 18)
    np.testing.assert_array_equal(left.sum(-1), [0, 0, 0, 3, 3, 7, 7, 11, 11])
    np.testing.assert_array_equal(local.sum(-1), [2, 4, 6, 5, 7, 5, 7, 5, 7])
    assert not (left & local).any()
    np.testing.assert_array_equal(sale.pairs(left | local, n), sale.causal(n, left))


def test_pairs_of_a_ragged_end_are_cut():
    assert sale.pairs(sale.always(70, np.zeros(0)), 70).shape == (70, 70)


def test_the_score_is_one_over_the_norm_where_the_row_is_largest(draw):
    s = draw(200, 200)
    top, norm = sale.sink_and_local(s)
    seen = np.where(sale.pairs(sale.always(200, s), 200), s, -np.inf)
    np.testing.assert_array_equal(top[:, 0], seen.max(-1))
    np.testing.assert_allclose(norm[:, 0], np.exp(seen - top).sum(-1))
    np.testing.assert_allclose(sale.relative_attention_score(top, s), 1 / norm)


def test_the_largest_of_a_block_leaves_out_what_is_above_the_diagonal():
    x = np.zeros((130, 130))
    x[3, 5], x[129, 128], x[70, 40] = 9, 2, 3
    np.testing.assert_array_equal(sale.largest_in_blocks(x), [[0, 0, 0, 0, 0], [0, 3, 0, 0, 0], [0, 0, 0, 0, 2]])


def test_a_threshold_of_zero_keeps_all_and_an_infinite_one_what_is_always_kept(draw):
    q, k, v = draw(2, 300, 16), draw(2, 300, 16), draw(2, 300, 16)
    dense = softmax(q, k, mask=sale.causal(300, q)) @ v
    for tau in (0, 0.99 * sale.DENSE_BELOW, np.array([0, 0])):
        np.testing.assert_allclose(sale.sale(q, k, v, tau), dense, atol=1e-12)
    assert (sale.selection(q, k, np.inf) == sale.always(300, q)).all()
    assert sale.density(sale.selection(q, k, 0), 300) == 1


def test_thresholds_are_one_a_head(draw):
    q, k = draw(2, 300, 16), draw(2, 300, 16)
    kept = sale.selection(q, k, np.array([0, np.inf]))
    np.testing.assert_array_equal(kept[0], sale.selection(q[0], k[0], 0))
    np.testing.assert_array_equal(kept[1], sale.selection(q[1], k[1], np.inf))


def test_one_pass_is_two_passes_where_nothing_or_everything_is_selected(draw):
    q, k = draw(300, 16), draw(300, 16)
    for tau in (0, np.inf):
        np.testing.assert_array_equal(sale.one_pass_selection(q, k, tau), sale.selection(q, k, tau))
    q, k = draw(700, 16), draw(700, 16)
    assert sale.one_pass_selection(q, k, 0.1).sum() < sale.selection(q, k, 0.1).sum()


def test_the_comparison_of_logarithms_is_that_of_scores():
    estimate, top, norm = np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.array([3.0, 3.0])
    tau = math.exp(1.5 - 0.5) / 3
    np.testing.assert_array_equal(sale.exceeds(estimate, top, norm, tau), [False, True])


def test_calibration_halves_until_the_error_is_small_and_ends_in_dense():
    dense = np.zeros((3, 5, 2))
    seen = []

    def output(tau):
        seen.append(tau.tolist())
        return np.broadcast_to(np.where(tau > np.array([1, 0.003, 0]), 0.2, 0.1)[:, None, None], dense.shape)

    tau = sale.calibrated(output, dense, theta=0.3)
    np.testing.assert_array_equal(tau, np.array([0.008, 0.002, 0], np.float32))
    assert len(seen) == 8
    np.testing.assert_allclose([one[2] for one in seen], [0.008 / 2**i for i in range(7)] + [0], rtol=1e-6)


def test_the_error_is_the_mean_over_tokens_of_the_distance():
    dense = np.zeros((2, 3, 4, 5))
    np.testing.assert_allclose(sale.error_per_token(dense + np.array([1, -2, 3])[:, None, None], dense), [5, 10, 15])


def test_the_cost_model_has_the_value_of_its_formula():
    assert sale.speed_up(0.11, 0.19) == pytest.approx(1 / 0.3)
    assert sale.speed_up(0.11, sale.largest_density(3.36, 0.11)) == pytest.approx(3.36)


@pytest.mark.parametrize("kind", ["needle", "local", "vertical"])
def test_synthetic_heads_have_their_structure(draw, kind):
    n, d = 640, 128
    q, k = synthetic(kind, draw(n, d), draw(n, d), every=4, reach=64)
    s, top = q @ k.T / math.sqrt(d), math.log(n) + 6
    np.testing.assert_allclose(s[:, 0].mean(), top, atol=0.5)
    rows = np.arange(n)
    if kind == "needle":
        found = s[:, 1:].argmax(-1) + 1
        assert (found[64:].reshape(-1, 64) == found[64::64, None]).all()
        assert (found[64:] < rows[64:] // 64 * 64).all()
        np.testing.assert_allclose(s[rows, found][64:], top - 1, atol=5)
    elif kind == "local":
        np.testing.assert_allclose(np.diag(s)[1:].mean(), top - 1, atol=0.5)
        assert (
            np.mean([s[i, i - 60] for i in range(200, n)]) > top / 2 > np.mean([s[i, i - 190] for i in range(200, n)])
        )
    else:
        np.testing.assert_allclose(s[:, 64::128].mean(), top - 1, atol=0.5)
        assert abs(s[:, 65::128].mean()) < 1


def test_another_kind_is_refused(draw):
    with pytest.raises(ValueError, match="give needle, local or vertical"):
        synthetic("random", draw(64, 8), draw(64, 8))


def test_torch_runs_the_same_lines(draw):
    torch = pytest.importorskip("torch", reason="needs torch")
    q, k, v = draw(2, 200, 16), draw(2, 200, 16), draw(2, 200, 16)
    found = sale.sale(*(torch.from_numpy(x) for x in (q, k, v)), torch.tensor([0.1, 0.2]))
    np.testing.assert_allclose(found, sale.sale(q, k, v, np.array([0.1, 0.2], np.float32)), atol=1e-12)
