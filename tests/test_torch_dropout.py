"""Held masks are one mask over time, drop-connect thins W_hh and nothing else; both keep the mean, and neither acts in use."""

import numpy as np
import pytest
import torch

from course_lib.cells import LSTMParams
from course_lib.stacked import Bidirectional
from course_lib.torch_dropout import Dropout, drop, drop_connect
from course_lib.torch_lstm import LSTM
from course_lib.torch_model import LanguageModel
from course_lib.torch_stack import BACKENDS
from course_lib.trees import leaves

T, N, D, H = 7, 50, 6, 40


def kept(x, y, rate):
    """Where entries were kept; the kept ones are scaled."""
    mask = y != 0
    torch.testing.assert_close(y, torch.where(mask, x / (1 - rate), torch.zeros(())))
    return mask


@pytest.mark.parametrize("rate", [0.25, 0.6])
def test_a_held_mask_is_the_same_at_every_step(rate):
    torch.manual_seed(0)
    x = torch.rand(T, N, D) + 0.5
    held, fresh = kept(x, drop(x, rate, held=True), rate), kept(x, drop(x, rate), rate)
    assert torch.equal(held, held[:1].expand_as(held))
    assert not torch.equal(fresh, fresh[:1].expand_as(fresh))
    for mask in (held[0], fresh):
        share = mask.double().mean().item()
        assert abs(share - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / mask.numel())
    assert held[0].double().mean(0).std() < 0.2, "streams and units have masks of their own"
    assert not torch.equal(held[0][0], held[0][1])
    assert drop(x, 0.0, held=True) is x


def test_the_gradient_passes_where_the_value_does():
    torch.manual_seed(1)
    x = (torch.rand(T, N, D) + 0.5).requires_grad_()
    y = drop(x, 0.5, held=True)
    y.sum().backward()
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 2.0))


def test_the_module_drops_in_training_only():
    module, x = Dropout(0.5, held=True), torch.ones(T, N, D)
    assert len(module(x).unique()) == 2
    assert module.eval()(x) is x


def layer():
    return LSTMParams(torch.rand(4 * H, D) + 1, torch.rand(4 * H, H) + 1, torch.rand(4 * H) + 1)


def test_drop_connect_thins_w_hh_only():
    torch.manual_seed(2)
    stacks = (layer(), layer()), (Bidirectional(layer(), layer()),)
    for layers in stacks:
        dropped = drop_connect(layers, 0.3)
        assert [type(part) for part in dropped] == [type(part) for part in layers]
        shares = []
        for old, new in zip(leaves(layers), leaves(dropped), strict=True):
            if old.shape == (4 * H, H):
                shares.append(kept(old, new, 0.3).double().mean().item())
            else:
                assert new is old
        assert len(shares) == 2
        assert all(abs(share - 0.7) < 0.03 for share in shares)
        assert drop_connect(layers, 0.0) is layers


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b not in ("triton", "compile")])
def test_every_backend_holds_its_masks(backend):
    """Same seed, same masks: every backend agrees with the loop, and held masks are not fresh ones."""
    outputs = []
    for held in (True, False):
        torch.manual_seed(3)
        module = LSTM(D, H, 2, backend=backend, dropout=0.5, held=held, recurrent_dropout=0.4).train()
        torch.manual_seed(4)
        outputs.append(module(torch.randn(T, 3, D))[0])
    assert not torch.allclose(*outputs)
    torch.manual_seed(3)
    reference = LSTM(D, H, 2, backend="loop", dropout=0.5, held=True, recurrent_dropout=0.4).train()
    torch.manual_seed(4)
    torch.testing.assert_close(outputs[0], reference(torch.randn(T, 3, D))[0], rtol=1e-4, atol=1e-5)


def test_dropping_by_hand_is_what_the_module_does():
    """Two layers: drop-connect on both matrices first, then a held mask between, drawn in this order."""
    torch.manual_seed(5)
    module = LSTM(D, H, 2, dropout=0.5, held=True, recurrent_dropout=0.4)
    x = torch.randn(T, N, D)
    torch.manual_seed(6)
    got, _ = module.train()(x)
    torch.manual_seed(6)
    first, second = drop_connect(module.params(), 0.4)
    with torch.no_grad():
        hs = steps(x, first)
        wanted = steps(drop(hs, 0.5, held=True), second)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    module.eval()
    torch.testing.assert_close(module(x)[0], steps(steps(x, module.params()[0]), module.params()[1]), rtol=1e-4, atol=1e-5)


def steps(x, params):
    h = c = torch.zeros(x.shape[1], H)
    out = []
    for row in x:
        i, f, g, o = (row @ params.W_ih.T + h @ params.W_hh.T + params.b).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out)


def test_the_language_model_refuses_what_it_cannot_do():
    for options, message in (
        ({"cell": "gru", "held": True}, "held, recurrent_dropout: expected neither with cell 'gru'"),
        ({"tie": True}, "tie: expected embedding_size = hidden_size, got 4 and 8"),
    ):
        with pytest.raises(ValueError, match=message):
            LanguageModel(11, 4, 8, **options)
    with pytest.raises(ValueError, match="recurrent_dropout: expected a rate in"):
        LSTM(3, 4, recurrent_dropout=1.0)


def test_tied_weights_are_one_matrix():
    model = LanguageModel(11, 8, 8, tie=True)
    assert model.params().embedding is model.params().W_out
    tokens = torch.randint(0, 11, (5, 3))
    model(tokens, model.initial_state(3))[0].square().sum().backward()
    tied = model.embedding.weight.grad.clone()
    free = LanguageModel.from_numpy(model.to_numpy())
    free(tokens, free.initial_state(3))[0].square().sum().backward()
    torch.testing.assert_close(tied, free.embedding.weight.grad + free.out.weight.grad, rtol=1e-4, atol=1e-5)


def test_the_embedding_may_have_a_rate_of_its_own():
    model = LanguageModel(11, 8, 8, dropout=0.5, input_dropout=0.1, held=True)
    assert (model.input_dropout.p, model.dropout.p, model.input_dropout.held) == (0.1, 0.5, True)
    assert LanguageModel(11, 8, 8, dropout=0.5).input_dropout.p == 0.5
