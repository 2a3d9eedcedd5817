"""A function called on tensors: its values and gradients are those of a derivation, and results of another form are named."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import sequence
from course_lib.cells import LSTMParams, LSTMState
from course_lib.diagnosis import MisfitError
from course_lib.tensor_call import (
    as_state,
    as_tensor,
    count_products,
    counted,
    differentiated,
    to_numpy,
)
from course_lib.torch_sequence import run_loop
from course_lib.trees import leaves

T, N, D, H = 3, 2, 5, 4


@pytest.fixture
def arguments():
    rng = np.random.default_rng(0)
    x, h, c, *weights = (rng.normal(size=s) for s in [(T, N, D), (N, H), (N, H), (4 * H, D), (4 * H, H), (4 * H,)])
    return x, LSTMState(h, c), LSTMParams(*weights)


def one(result):
    return (as_tensor("y", result),)


def test_gradients_are_those_of_lesson_05(arguments):
    hs, (h, c), dx, dstate, dparams = differentiated(run_loop, arguments, lambda result: (result[0], result[1]))
    right, final, cache = sequence.lstm_forward(*arguments)
    upstream = [np.random.default_rng(k).normal(size=a.size).reshape(a.shape) for k, a in enumerate((right, *final))]
    expected = sequence.lstm_backward(upstream[0], LSTMState(*upstream[1:]), cache)
    for a, b in zip(leaves((hs, h, c, dx, dstate, dparams)), leaves((right, *final, *expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    assert isinstance(dstate, LSTMState) and isinstance(dparams, LSTMParams)


def test_the_function_sees_tensors_that_share_memory():
    array, lengths, params = np.ones((2, 3)), np.array([1, 2]), LSTMParams(*np.ones((3, 4, 4)))

    def function(x, lengths, params):
        assert x.requires_grad and not isinstance(x, torch.nn.Parameter) and x.dtype == torch.float64
        assert lengths.dtype == torch.int64 and not lengths.requires_grad
        assert all(isinstance(p, torch.nn.Parameter) for p in params)
        x.data[0, 0] = 7
        return x * 2

    y, dx, dparams = differentiated(function, (array, lengths, params), one)
    assert array[0, 0] == 7 and y[0, 0] == 14 and dx.shape == (2, 3)  # none for lengths
    assert all(not d.any() for d in dparams)


def test_every_result_counts_in_the_loss_and_no_two_alike():
    x = np.ones(3)
    _, _, both = differentiated(lambda x: (x, x), (x,), tuple)
    _, _, first = differentiated(lambda x: (x, x.detach()), (x,), tuple)
    _, _, second = differentiated(lambda x: (x.detach(), x), (x,), tuple)
    np.testing.assert_allclose(both, first + second)
    assert len({*first, *second}) == 6


def test_what_has_no_history_has_gradient_zero_and_what_is_missing_none():
    x = np.ones(3)
    assert not differentiated(lambda x: x.detach(), (x,), one)[1].any()
    assert differentiated(lambda x: (x, None), (x,), tuple)[1:] == (None, None)
    assert differentiated(lambda x: None, (x,), one) is None
    assert not differentiated(lambda x: x > 0, (x,), one)[1].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_does_not_matter(mode):
    with mode():
        assert differentiated(lambda x: x * x, (np.ones(2),), one)[1].all()
        assert not torch.is_grad_enabled()


def test_what_autograd_refuses_is_explained():
    def in_place(x):
        y = x.exp()
        y *= 2
        return y

    def backward(x):
        y = x.exp()
        y.sum().backward()
        return y

    with pytest.raises(MisfitError, match=r"modified by an inplace operation; give each new value a new tensor, `h = "):
        differentiated(in_place, (np.ones(2),), one)
    with pytest.raises(MisfitError, match="through the graph a second time; the check itself calls backward, your function mu"):
        differentiated(backward, (np.ones(2),), one)


def test_other_types_are_named():
    assert as_tensor("y", None) is None
    with pytest.raises(MisfitError, match=r"^y: expected a tensor, got float$"):
        as_tensor("y", 1.0)
    with pytest.raises(MisfitError, match=r"^y: expected a tensor, got list: torch.stack makes one of a list of them$"):
        as_tensor("y", [torch.ones(1)])
    for value in (np.ones(2), np.float64(1)):
        with pytest.raises(MisfitError, match=r"autograd sees nothing of what NumPy computes$"):
            as_tensor("y", value)
    h, c = torch.ones(2), torch.zeros(2)
    for pair in [(h, c), [h, c], LSTMState(h, c)]:
        assert as_state("final", pair) == LSTMState(h, c)
    assert as_state("final", None) is None and as_state("final", (h, None)) == (h, None)
    with pytest.raises(MisfitError, match=r"^final: expected the pair \(h, c\), got one Tensor$"):
        as_state("final", torch.ones(2, 3))
    with pytest.raises(MisfitError, match=r"^final: expected the pair \(h, c\), got 3 values$"):
        as_state("final", (h, c, c))
    with pytest.raises(MisfitError, match=r"^final.c: expected a tensor, got int$"):
        as_state("final", (h, 3))
    assert counted((1, 2)) == "2 values" and counted(3) == "one int"


def test_numbers_of_any_precision():
    tree = to_numpy((torch.ones(2, dtype=torch.bfloat16, requires_grad=True), None, (torch.ones(1, dtype=torch.float64),)))
    assert tree[0].dtype == np.float32 and tree[1] is None and tree[2][0].dtype == np.float64


W, b = torch.randn(4 * H, D, dtype=torch.float64), torch.randn(4 * H, dtype=torch.float64)


@pytest.mark.parametrize(
    "product",
    [
        lambda x: x @ W.T,
        lambda x: torch.nn.functional.linear(x, W, b),
        lambda x: torch.einsum("tnd,gd->tng", x, W),
        lambda x: torch.tensordot(x, W, ([2], [1])),
        lambda x: torch.bmm(x, W.T.expand(T, D, 4 * H)),
        lambda x: torch.baddbmm(b.expand(T, N, -1), x, W.T.expand(T, D, 4 * H)),
        lambda x: torch.addmm(b, x.flatten(0, 1), W.T),
        lambda x: b.repeat(T * N, 1).addmm_(x.flatten(0, 1), W.T),
        lambda x: torch.vmap(lambda row: row @ W.T)(x),
        lambda x: W @ x[..., None],
        lambda x: torch._VF.lstm(
            x, (W.new_zeros(1, N, H),) * 2, [W, W.new_ones(4 * H, H), b, b], True, 1, 0, True, False, False
        ),
    ],
    ids=["@", "linear", "einsum", "tensordot", "bmm", "baddbmm", "addmm", "addmm_", "vmap", "left", "nn.LSTM"],
)
def test_one_product_is_one_however_it_is_written(product):
    x = torch.randn(T, N, D, dtype=torch.float64, requires_grad=True)
    result, count = count_products(lambda: product(x), D)
    assert count == 1 and result is not None


def test_products_over_other_axes_do_not_count():
    def function():
        return [torch.randn(N, H) @ torch.randn(H, D) for _ in range(3)] + [torch.mv(W, W[0]), W[0].dot(W[1])]

    assert count_products(function, D)[1] == 2 and count_products(function, H)[1] == 3


def test_a_problem_loads_torch_when_it_is_drawn():
    code = """
import sys
import numpy as np
from course_lib.tensor_call import with_torch
problem = with_torch(lambda rng: (rng.integers(9),))
assert "torch" not in sys.modules
assert len(problem(np.random.default_rng(0))) == 1 and "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
