"""Weights of ONNX and Keras: an LSTM written after their own formulas gives what ours gives with the converted weights."""

import numpy as np
import pytest
import torch

from course_lib.cells import LSTMParams, LSTMState
from course_lib.conversion_book import lstm_from_keras, lstm_from_onnx
from course_lib.exercises import EXERCISES, check
from course_lib.sequence import lstm_forward

ONNX, KERAS = EXERCISES["lstm_from_onnx"], EXERCISES["lstm_from_keras"]


def sigma(a):
    return 1 / (1 + np.exp(-a))


def onnx_lstm(X, W, R, B, h, c):
    """The equations of https://onnx.ai/onnx/operators/onnx__LSTM.html, gate by gate, in their letters."""
    H = R.shape[2]
    (Wi, Wo, Wf, Wc), (Ri, Ro, Rf, Rc) = (M[0].reshape(4, H, -1) for M in (W, R))
    Wbi, Wbo, Wbf, Wbc, Rbi, Rbo, Rbf, Rbc = B[0].reshape(8, H)
    for Xt in X:
        it = sigma(Xt @ Wi.T + h @ Ri.T + Wbi + Rbi)
        ft = sigma(Xt @ Wf.T + h @ Rf.T + Wbf + Rbf)
        ct = np.tanh(Xt @ Wc.T + h @ Rc.T + Wbc + Rbc)
        ot = sigma(Xt @ Wo.T + h @ Ro.T + Wbo + Rbo)
        c = ft * c + it * ct
        h = ot * np.tanh(c)
    return LSTMState(h, c)


def keras_lstm(x, kernel, recurrent_kernel, bias, h, c):
    """As keras.layers.LSTM computes it: one product from the right, columns i, f, c, o."""
    for x_t in x:
        z_i, z_f, z_c, z_o = np.split(x_t @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
        c = sigma(z_f) * c + sigma(z_i) * np.tanh(z_c)
        h = sigma(z_o) * np.tanh(c)
    return LSTMState(h, c)


@pytest.mark.parametrize(("theirs", "exercise"), [(onnx_lstm, ONNX), (keras_lstm, KERAS)])
@pytest.mark.parametrize("trial", range(5))
def test_the_same_network(theirs, exercise, trial):
    rng = np.random.default_rng(trial)
    weights = exercise.problem(rng)
    params = exercise.reference(*weights)
    H, D = params.W_hh.shape[1], params.W_ih.shape[1]
    x, h, c = rng.normal(size=(6, 3, D)), rng.normal(size=(3, H)), rng.normal(size=(3, H))
    _, final, _ = lstm_forward(x, LSTMState(h, c), params)
    np.testing.assert_allclose(final, theirs(x, *weights, h, c), rtol=0, atol=1e-12)


def by_rows(W, R, B):
    H = R.shape[2]
    rows = np.r_[:H, 2 * H : 4 * H, H : 2 * H]
    return W[0, rows], R[0, rows], B.reshape(2, -1).sum(0)[rows]


def by_blocks(W, R, B):
    def order(a):
        return a.reshape(4, -1, *a.shape[1:])[[0, 2, 3, 1]].reshape(a.shape)

    half = B.shape[1] // 2
    return [torch.from_numpy(order(W.squeeze(0))), order(np.squeeze(R, 0)).tolist(), order(B[0, :half]) + order(B[0, half:])]


@pytest.mark.parametrize("convert", [lstm_from_onnx, by_rows, by_blocks])
def test_onnx_in_many_ways(convert):
    assert check("lstm_from_onnx", convert).passed


@pytest.mark.parametrize(
    "convert",
    [
        lstm_from_keras,
        lambda k, r, b: (np.swapaxes(k, 0, 1), np.einsum("ij->ji", r), b.copy()),
        lambda k, r, b: LSTMParams(torch.from_numpy(k).T, torch.from_numpy(r).T, torch.tensor(b)),
        lambda k, r, b: [np.vstack([part.T for part in np.split(k, 4, axis=1)]), r.transpose().tolist(), list(b)],
    ],
)
def test_keras_in_many_ways(convert):
    assert check("lstm_from_keras", convert).passed


def written_into(W, R, B):
    half = B.shape[1] // 2
    B[:, :half] += B[:, half:]
    return lstm_from_onnx(W, R, np.concatenate([B[:, :half], 0 * B[:, half:]], axis=1))


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("lstm_from_onnx", lambda W, R, B: by_rows(W, R, B)[:2], "params: expected 3 values (W_ih, W_hh, b), got 2"),
        ("lstm_from_onnx", lambda W, R, B: (*by_rows(W, R, B)[:2], B[:, : B.shape[1] // 2]), "  ✗ params.b: expected shape"),
        ("lstm_from_onnx", lambda W, R, B: (*by_rows(W, R, B)[1::-1], by_rows(W, R, B)[2]), "  ✗ params.W_ih: expected shape"),
        ("lstm_from_onnx", written_into, "it changes its argument B"),
        ("lstm_from_onnx", lambda W, R, B: by_rows(W, R, np.roll(B, R.shape[2])), "the gates stand in the order g, o, f, i"),
        ("lstm_from_onnx", lambda W, R, B: by_rows(W[:, ::-1], R[:, ::-1], B[:, ::-1]), "params.W_ih is wrong"),
        ("lstm_from_keras", lambda k, r, b: (k.T, r.T, np.concatenate([b, b])), "  ✗ params.b: expected shape"),
        ("lstm_from_keras", lambda k, r, b: (np.roll(k.T, len(r), 0), r.T, b), "the gates stand in the order o, i, f, g"),
        ("lstm_from_keras", lambda k, r, b: (k.T, r.T, b, b), "expected 3 values (W_ih, W_hh, b), got 4"),
    ],
)
def test_what_is_wrong_is_said(name, wrong, said):
    report = check(name, wrong)
    assert not report.passed and said in "\n".join(report.lines)
