"""The shared parts of the unrolled cells, each against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import assert_close

from course_lib import unroll
from course_lib.layers import sigmoid
from course_lib.shapes import ShapeError
from course_lib.unroll import ONE_PRODUCT_BELOW

both_dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
T, N, D, H = 5, 3, 2, 4
LENGTHS = np.array([3, 0, 5])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@both_dtypes
@pytest.mark.parametrize("N", [1, 3, ONE_PRODUCT_BELOW - 1, ONE_PRODUCT_BELOW, ONE_PRODUCT_BELOW + 5])
def test_input_product_on_both_branches(N, dtype, tolerance):
    x, W = normal(T, N, D).astype(dtype), normal(4 * H, D, seed=1).astype(dtype)
    a = unroll.input_product(x, W, dtype)
    assert a.flags.c_contiguous
    assert a.dtype == dtype
    assert_close(a, np.einsum("tnd,kd->tkn", x.astype(float), W.astype(float)), tolerance)


def test_products_after_the_loop():
    da, x, W, hs = normal(4 * H, T, N), normal(T, N, D, seed=1), normal(4 * H, D, seed=2), normal(T + 1, N, H, seed=3)
    dx, dW, db = unroll.input_gradients(da, x, W)
    expected = np.einsum("ktn,kd->tnd", da, W), np.einsum("ktn,tnd->kd", da, x), np.einsum("ktn->k", da)
    assert_close((dx, dW, db), expected, 1e-12)
    assert_close(unroll.input_gradients(da, x[::-1], W)[1], np.einsum("ktn,tnd->kd", da, x[::-1]), 1e-12)
    assert_close(unroll.recurrent_gradient(da, hs), np.einsum("ktn,tnh->kh", da, hs[:T]), 1e-12)


@both_dtypes
def test_activations_in_place(dtype, tolerance):
    a = (4 * normal(4 * H, N)).astype(dtype)
    expected = np.concatenate([sigmoid(a[: 2 * H]), np.tanh(a[2 * H : 3 * H]), sigmoid(a[3 * H :])])
    expected_sigmoid = sigmoid(a)
    b = a.copy()
    assert unroll.lstm_activations_(a, H) is None
    assert_close(a, expected, tolerance)
    assert unroll.sigmoid_(b) is None
    assert_close(b, expected_sigmoid, tolerance)
    assert a.dtype == b.dtype == dtype


def test_lengths_are_checked_and_copied():
    assert unroll.check_lengths(None, T, N) is None
    for given_lengths in ([3, 0, 5], LENGTHS, LENGTHS.astype(np.uint64), LENGTHS.astype(np.int8)):
        checked = unroll.check_lengths(given_lengths, T, N)
        assert checked.tolist() == [3, 0, 5]
        assert np.issubdtype(checked.dtype, np.signedinteger)
        assert checked is not given_lengths


@pytest.mark.parametrize(
    ("lengths", "kind", "message"),
    [
        ([3, 0], ShapeError, "lengths: axis N should be 3 (N = 3 from x), got shape (2,)"),
        ([[3, 0, 5]], ShapeError, "lengths: axis N should be 3 (N = 3 from x), got shape (1, 3)"),
        (4, ShapeError, "lengths: axis N should be 3 (N = 3 from x), got shape ()"),
        ([3, 0, 6], ValueError, "lengths: expected integers in [0, 5], got [3, 0, 6]"),
        ([3, -1, 5], ValueError, "lengths: expected integers in [0, 5], got [3, -1, 5]"),
        ([3, 0, 5.0], ValueError, "lengths: expected integers in [0, 5], got [3.0, 0.0, 5.0]"),
        ([True, True, True], ValueError, "lengths: expected integers in [0, 5], got [True, True, True]"),
    ],
)
def test_wrong_lengths_are_named(lengths, kind, message):
    with pytest.raises(kind) as caught:
        unroll.check_lengths(lengths, T, N)
    assert str(caught.value) == message


def test_outputs_and_final_states():
    hs = normal(T + 1, N, H)
    kept = hs.copy()
    out, masked = unroll.outputs(hs, None), unroll.outputs(hs, LENGTHS)
    final, masked_final = unroll.final_state(hs, None), unroll.final_state(hs, LENGTHS)
    assert_close(out, hs[1:], 0)
    assert_close(final, hs[-1], 0)
    for n, length in enumerate(LENGTHS):
        assert_close(masked[:length, n], hs[1 : length + 1, n], 0)
        assert_close(masked[length:, n], np.zeros((T - length, H)), 0)
        assert_close(masked_final[n], hs[length, n], 0)
    for array in (out, masked, final, masked_final):
        array[...] = np.nan
    assert_close(hs, kept, 0)
    assert unroll.outputs(hs.astype(np.float32), LENGTHS).dtype == np.float32


def test_output_gradients():
    dhs, dfinal, hs = normal(T, N, H), normal(N, H, seed=1), normal(T + 1, N, H, seed=2)
    kept = dhs.copy(), dfinal.copy()
    each, dh = unroll.output_gradients(dhs, dfinal, hs, None)
    assert_close((each, dh), (dhs, dfinal.T), 0)
    dh += 1
    each, dh = unroll.output_gradients(dhs, dfinal, hs, LENGTHS)
    assert_close(dh, np.zeros((H, N)), 0)
    for n, length in enumerate(LENGTHS):
        expected = dhs[:, n].copy()
        expected[length:] = 0
        if length:
            expected[length - 1] += dfinal[n]
        assert_close(each[:, n], expected, 0)
    assert_close((dhs, dfinal), kept, 0)


@pytest.mark.parametrize(
    ("dhs", "dfinal", "message"),
    [
        ((T, N, 5), (N, H), "dhs: axis H should be 4 (H = 4 from output), got shape (5, 3, 5)"),
        ((T + 1, N, H), (N, H), "dhs: axis T should be 5 (T = 5 from output), got shape (6, 3, 4)"),
        ((T, N, H), (1, H), "dfinal: axis N should be 3 (N = 3 from output), got shape (1, 4)"),
    ],
)
def test_wrong_gradients_are_named(dhs, dfinal, message):
    with pytest.raises(ShapeError) as caught:
        unroll.output_gradients(np.zeros(dhs), np.zeros(dfinal), np.zeros((T + 1, N, H)), None)
    assert str(caught.value) == message


def test_initial_gradient():
    dh, dfinal = normal(H, N), normal(N, H, seed=1)
    kept = dh.copy()
    plain = unroll.initial_gradient(dh, dfinal, None)
    assert_close(plain, dh.T, 0)
    plain[...] = np.nan
    assert_close(dh, kept, 0)
    expected = dh.T.copy()
    expected[1] = dfinal[1]
    assert_close(unroll.initial_gradient(dh, dfinal, LENGTHS), expected, 0)


@given(st.lists(st.integers(0, T), min_size=1, max_size=4), st.sampled_from([np.int64, np.uint64, np.uint8, list]))
def test_reversing_moves_real_steps_only_and_undoes_itself(lengths, kind):
    x = normal(T, len(lengths), D)
    there = unroll.reverse(x, kind(lengths))
    for n, length in enumerate(lengths):
        assert_close(there[:, n], np.concatenate([x[:length, n][::-1], x[length:, n]]), 0)
    assert_close(unroll.reverse(there, kind(lengths)), x, 0)
    assert_close(unroll.reverse(x, None), x[::-1], 0)


def test_only_nan_in_the_result_makes_the_arguments_suspect():
    spoiled = np.array([1, np.nan])
    unroll.check_result(np.ones(2), x=spoiled)
    unroll.check_result(spoiled, x=np.ones(2))
    with pytest.raises(ValueError) as caught:
        unroll.check_result(spoiled, x=np.ones(2), W_hh=spoiled)
    assert str(caught.value) == "W_hh: expected numbers, got NaN at [1] (1 in all)"
