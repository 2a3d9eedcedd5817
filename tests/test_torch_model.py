"""The language model in torch is the one in NumPy: weights, logits, losses, gradients, states, steps and evaluation."""

import numpy as np
import pytest
import torch
from problems import assert_close, random_like
from torch.nn.functional import cross_entropy

from course_lib import decoding, language_model
from course_lib.cells import LSTMParams
from course_lib.checkpoint import load
from course_lib.torch_model import LanguageModel, evaluate, make_step, to_arrays
from course_lib.trees import leaves, map_tree

V, E, H, T, N = 13, 4, 6, 7, 5
every_cell = pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
every_depth = pytest.mark.parametrize("L", [1, 3])


def problem(cell, L, dtype=np.float64):
    """Parameters and a state without a zero, tokens and targets."""
    rng = np.random.default_rng(5)
    params = map_tree(lambda a: a + 0.1, language_model.init(V, E, H, L, cell, 2, dtype))
    return (
        params,
        random_like(rng, language_model.initial_state(params, N)),
        rng.integers(0, V, (T, N)),
        rng.integers(0, V, (T, N)),
    )


def tensors(tree):
    return map_tree(lambda a: torch.tensor(a), tree)


@every_cell
@every_depth
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_loss_gradients_and_state_equal_numpys(cell, L, dtype, bound):
    params, state, tokens, targets = problem(cell, L, dtype)
    loss, grads, after = language_model.loss_and_grads(params, tokens, targets, state)
    model = LanguageModel.from_numpy(params)
    logits, theirs = model(torch.from_numpy(tokens), tensors(state))
    assert logits.dtype == torch.from_numpy(params.W_out).dtype
    mean = cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    mean.backward()
    assert abs(mean.item() - loss) < bound
    assert_close(map_tree(lambda p: p.grad.numpy(), model.params()), grads, bound)
    assert_close(to_arrays(theirs), after, bound)


@every_cell
@every_depth
def test_weights_make_the_round_trip_and_are_copies(cell, L):
    params, *_ = problem(cell, L)
    model = LanguageModel.from_numpy(params)
    back = model.to_numpy()
    assert [type(part) for part in back.layers] == [type(part) for part in params.layers]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(leaves(back), leaves(params), strict=True))
    for leaf in leaves(back):
        leaf += 1
    with torch.no_grad():
        model.embedding.weight.mul_(2)
    assert all(np.array_equal(a, b) for a, b in zip(leaves(problem(cell, L)[0]), leaves(params), strict=True))
    assert np.array_equal(model.to_numpy().W_out, params.W_out)


def test_every_trainable_parameter_is_in_the_tree():
    for cell in ("rnn", "lstm", "gru"):
        model = LanguageModel.from_numpy(problem(cell, 2)[0])
        mine = {id(leaf) for leaf in leaves(model.params())}
        assert mine == {id(p) for p in model.parameters() if p.requires_grad}
        frozen = [p for p in model.parameters() if not p.requires_grad]
        assert len(frozen) == (2 if cell == "rnn" else 0)
        assert not any(p.any() for p in frozen)


@every_cell
def test_a_shipped_or_fresh_model_gives_the_same_log_probabilities(cell):
    found = load("shakespeare") if cell == "lstm" else None
    params = found.params if found else problem(cell, 2, np.float32)[0]
    tokens = np.random.default_rng(0).integers(0, len(params.embedding), 900)
    model = LanguageModel.from_numpy(params)
    one, other = language_model.make_step(params), make_step(model)
    state, theirs = language_model.initial_state(params, 1), model.initial_state(1)
    for token in tokens[:200]:
        log_probs, state = one(np.array([token]), state)
        got, theirs = other(np.array([token]), theirs)
        assert np.abs(np.exp(got).sum() - 1) < 1e-5
        np.testing.assert_allclose(got, log_probs, rtol=1e-5, atol=1e-4)
    nats, count = language_model.evaluate(params, tokens, streams=4, steps=50)
    their_nats, their_count = evaluate(model, tokens, streams=4, steps=50)
    assert (count, their_count) == (899, 899)
    assert abs(nats - their_nats) / count < 1e-5


def test_decoders_take_the_step():
    params, *_ = problem("lstm", 2)
    model = LanguageModel.from_numpy(params)
    first = np.arange(3)
    wanted = decoding.greedy(language_model.make_step(params), language_model.initial_state(params, 3), first, 20)
    assert np.array_equal(decoding.greedy(make_step(model), model.initial_state(3), first, 20), wanted)


def test_dropout_is_where_numpys_is_and_off_in_evaluation():
    params, state, tokens, _ = problem("lstm", 3)
    model = LanguageModel.from_numpy(params, dropout=0.5)
    places, given = [], torch.from_numpy(tokens)
    for module in (model.input_dropout, model.dropout, model.layers):
        module.register_forward_hook(lambda module, inputs, _: places.append((type(module).__name__, inputs[0].shape[-1])))
    model(given, tensors(state))
    assert places == [("Dropout", E), ("LSTM", E), ("Dropout", H)]
    assert (model.dropout.p, model.layers.dropout) == (0.5, 0.5)
    torch.manual_seed(0)
    one, two = (model(given, tensors(state))[0] for _ in range(2))
    assert not torch.equal(one, two)
    evaluate(model, np.arange(10) % V)
    assert model.training, "evaluation leaves the mode as it was"
    model.eval()
    assert torch.equal(*(model(given, tensors(state))[0] for _ in range(2)))


def test_evaluation_does_not_drop_or_keep_gradients():
    params, *_ = problem("gru", 2)
    model, tokens = LanguageModel.from_numpy(params, dropout=0.9), np.random.default_rng(1).integers(0, V, 57)
    assert evaluate(model, tokens, 3, 5)[0] == pytest.approx(language_model.evaluate(params, tokens, 3, 5)[0])
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="tokens: expected at least 2, got 1"):
        evaluate(model, tokens[:1])


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="cell: expected one of rnn, lstm, gru, got 'tree'"):
        LanguageModel(V, E, H, cell="tree")
    assert isinstance(LanguageModel(V, E, H).params().layers[0], LSTMParams)
