"""The exercises of lessons 07 and 08 on moving weights: what ONNX and Keras call an LSTM, and what we do.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

import numpy as np

from course_lib.cells import LSTMParams
from course_lib.exercise_book import Exercise, slips
from course_lib.lstm_book import LSTM_ORDER
from course_lib.rnn_book import draw, sizes


def lstm_from_onnx(W: np.ndarray, R: np.ndarray, B: np.ndarray) -> LSTMParams:
    """Our parameters from those of ONNX's LSTM in one direction.

    Args:     W: (1, 4H, D), R: (1, 4H, H), rows i, o, f, c. B: (1, 8H), the input's 4H biases, then the recurrent ones.
    Returns:  LSTMParams, rows i, f, g, o; its one bias is the sum of the two.
    Reference: https://onnx.ai/onnx/operators/onnx__LSTM.html
    """

    def rows(array: np.ndarray) -> np.ndarray:
        i, o, f, c = np.split(array, 4)
        return np.concatenate([i, f, c, o])

    b_input, b_recurrent = np.split(B[0], 2)
    return LSTMParams(rows(W[0]), rows(R[0]), rows(b_input + b_recurrent))


def lstm_from_keras(kernel: np.ndarray, recurrent_kernel: np.ndarray, bias: np.ndarray) -> LSTMParams:
    """Our parameters from what ``keras.layers.LSTM.get_weights()`` returns.

    Args:     kernel: (D, 4H), recurrent_kernel: (H, 4H), bias: (4H,), gates i, f, c, o; c is our g.
    Returns:  LSTMParams, rows i, f, g, o.
    """
    return LSTMParams(kernel.T, recurrent_kernel.T, bias)


def _onnx(rng: np.random.Generator) -> tuple:
    _, _, D, H = sizes(rng)
    return tuple(draw(rng, (1, 4 * H, D), (1, 4 * H, H), (1, 8 * H)))


def _keras(rng: np.random.Generator) -> tuple:
    _, _, D, H = sizes(rng)
    return tuple(draw(rng, (D, 4 * H), (H, 4 * H), (4 * H,)))


CONVERSION_EXERCISES: dict[str, Exercise] = {
    "lstm_from_onnx": Exercise(
        "7.5",
        lstm_from_onnx,
        _onnx,
        [
            *slips(
                lstm_from_onnx,
                ("the rows still stand in ONNX's order i, o, f, c", "[i, f, c, o]", "[i, o, f, c]"),
                ("ONNX's c is our g: f comes before it", "[i, f, c, o]", "[i, c, f, o]"),
                ("o is the last block", "[i, f, c, o]", "[i, f, o, c]"),
                ("that is the way back, from our order to another: block k of the result is block order[k] of ONNX's",
                 "[i, f, c, o]", "[i, c, o, f]"),
                ("B holds two biases: the recurrent one is left out", "rows(b_input + b_recurrent)", "rows(b_input)"),
                ("B holds two biases: the input's is left out", "rows(b_input + b_recurrent)", "rows(b_recurrent)"),
                ("the two biases act as their sum, not as their mean", "rows(b_input + b_recurrent)",
                 "rows((b_input + b_recurrent) / 2)"),
                ("we have one bias of 4H: add the two, do not keep both",
                 "rows(b_input + b_recurrent)", "np.concatenate([rows(b_input), rows(b_recurrent)])"),
                ("the bias has gates too: put its blocks into our order",
                 "rows(b_input + b_recurrent)", "b_input + b_recurrent"),
                ("R has gates too: put its blocks into our order", "rows(R[0])", "R[0]"),
                ("W has gates too: put its blocks into our order", "rows(W[0])", "W[0]"),
                ("the first axis counts directions, of which there is one: it must go",
                 "rows(W[0]), rows(R[0])", "rows(W[0])[None], rows(R[0])[None]"),
                ("the first axis counts directions: what is cut into gates is W[0], not W", "rows(W[0])", "rows(W)"),
                ("a gate is a block of H rows, not every fourth row", "np.split(array, 4)", "(array[k::4] for k in range(4))"),
                ("B is the input's 4H biases, then the recurrent 4H: they do not alternate",
                 "np.split(B[0], 2)", "B[0].reshape(-1, 2).T"),
                ("ONNX's matrices have the gates in their rows, as ours: no transpose",
                 "rows(W[0]), rows(R[0])", "rows(W[0]).T, rows(R[0]).T"),
            ),
        ],
        arguments="W R B", outputs="params", gates=LSTM_ORDER,
    ),
    "lstm_from_keras": Exercise(
        "8.1",
        lstm_from_keras,
        _keras,
        [
            *slips(
                lstm_from_keras,
                ("Keras multiplies from the right, x @ kernel: both matrices must be transposed",
                 "kernel.T, recurrent_kernel.T", "kernel, recurrent_kernel"),
                ("the recurrent kernel too must be transposed", "recurrent_kernel.T", "recurrent_kernel"),
                ("the kernel too must be transposed", "(kernel.T", "(kernel"),
                ("reshape keeps the order of the numbers: the transpose, .T, turns columns into rows",
                 "kernel.T, recurrent_kernel.T", "*(k.reshape(k.shape[::-1]) for k in (kernel, recurrent_kernel))"),
                ("W_ih multiplies x and comes from kernel; W_hh multiplies h and comes from recurrent_kernel",
                 "kernel.T, recurrent_kernel.T", "recurrent_kernel.T, kernel.T"),
                ("Keras' order i, f, c, o is ours: c is our g, and nothing moves",
                 "kernel.T, recurrent_kernel.T, bias",
                 "*(np.concatenate([np.split(a, 4)[k] for k in (0, 2, 1, 3)]) for a in (kernel.T, recurrent_kernel.T, bias))"),
                ("that is ONNX's order i, o, f, c; Keras' is i, f, c, o, as ours",
                 "kernel.T, recurrent_kernel.T, bias",
                 "*(np.concatenate([np.split(a, 4)[k] for k in (0, 2, 3, 1)]) for a in (kernel.T, recurrent_kernel.T, bias))"),
                ("that turns the gates around: the transpose has the columns, from left to right, as rows from top to bottom",
                 "kernel.T, recurrent_kernel.T", "np.rot90(kernel), np.rot90(recurrent_kernel)"),
                ("the forget gate's 1 (unit_forget_bias) is in the bias already",
                 ", bias)", ", bias + np.repeat([0, 1, 0, 0], len(bias) // 4))"),
                ("the bias is missing", ", bias)", ", np.zeros_like(bias))"),
            ),
        ],
        arguments="kernel recurrent_kernel bias", outputs="params", gates=LSTM_ORDER,
    ),
}  # fmt: skip
