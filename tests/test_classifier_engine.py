"""Training steps of a classifier: one step by hand, parts of a batch add up, padding teaches nothing, resumed bit for bit."""

import numpy as np
import pytest
import torch
from problems import assert_close

from course_lib import classifier
from course_lib.budget import Config
from course_lib.classifier_engine import ClassifierEngine
from course_lib.classifier_model import Examples, build
from course_lib.errors import CourseError
from course_lib.trees import map_tree

N, V, C, T = 7, 9, 4, 6
MODEL = {"vocab_size": V, "embedding_size": 5, "hidden_sizes": [6, 6], "classes": C, "dropout": 0.0}


def config(**changes) -> Config:
    given = {"data": "", "task": "classify", "engine": "torch", "device": "cpu", "batch_size": N, "steps": 9, "hidden": 6}
    return Config(**given | changes)


def params() -> dict:
    rng = np.random.default_rng(2)
    return {name: rng.normal(0, 0.5, tuple(p.shape)).astype(np.float32) for name, p in build(MODEL).params().items()}


def engine(dtype=torch.float64, dropout=0.0, **changes) -> ClassifierEngine:
    made = ClassifierEngine(config(**changes), MODEL | {"dropout": dropout}, params())
    made.model.to(dtype)
    return made


def examples(seed=0, n=N) -> Examples:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, T + 1, n)
    lengths[0] = T
    tokens = rng.integers(1, V, (T, n)) * (np.arange(T)[:, None] < lengths)
    return Examples(*map(torch.from_numpy, (tokens, lengths, rng.integers(0, C, n))))


def some(seed=0, n=N) -> tuple:
    data = examples(seed, n)
    return data[:2], data.labels


def gradients(made: ClassifierEngine) -> dict:
    return map_tree(lambda p: p.grad.numpy().copy(), made.model.params())


def test_a_step_is_adam_on_the_clipped_gradient_of_the_mean_loss():
    made = engine(weight_decay=0.1)
    twin = build(MODEL, params()).double().train()
    adam = torch.optim.AdamW(
        [{"params": [p for p in twin.parameters() if (p.dim() > 1) == d], "weight_decay": 0.1 * d} for d in (True, False)]
    )
    for step in range(3):
        (tokens, lengths), labels = some(step)
        rows = [twin(tokens[: int(n), [k]], n[None]) for k, n in enumerate(lengths)]  # one text at a time, without padding
        expected = torch.stack([-row[0].log_softmax(0)[y] for row, y in zip(rows, labels, strict=True)]).mean()
        adam.zero_grad()
        expected.backward()
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = 0.01
        adam.step()
        loss, found = made.step((tokens, lengths), labels, 0.01)
        assert (loss, found) == (pytest.approx(expected.item(), rel=1e-12), pytest.approx(norm.item(), rel=1e-12))
    assert_close(made.params, map_tree(lambda p: p.detach().numpy(), twin.params()), 1e-10)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_the_batch(parts):
    whole, cut, seen = engine(), engine(accumulate=parts), []
    cut.model.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].shape, int(inputs[1].max()))))
    for step in range(3):
        expected, got = (made.step(*some(step), 0.01) for made in (whole, cut))
        assert got == pytest.approx(expected, rel=1e-12)
        assert_close(gradients(cut), gradients(whole), 1e-12)
    assert len(seen) == 3 * parts
    assert sum(shape[1] for shape, _ in seen) == 3 * N
    assert all(shape[0] == longest for shape, longest in seen), "no part reads more padding than its longest needs"
    few = some(5, 2)
    assert cut.step(*few, 0.01) == pytest.approx(whole.step(*few, 0.01), rel=1e-12)


def test_evaluation_is_of_the_judged_weights_without_dropout():
    made, data = engine(torch.float32, dropout=0.5, average=0.9), examples(3, 20)
    for step in range(4):
        made.step(*some(step), 0.05)
    judged = build(MODEL, made.averaged).eval()
    expected = classifier.log_probs(judged, data)
    np.testing.assert_allclose(made.log_probs(data), expected, atol=1e-6)
    assert np.abs(made.log_probs(data) - classifier.log_probs(build(MODEL, made.params).eval(), data)).max() > 1e-3
    nats, count = made.evaluate(data)
    assert count == 20
    assert nats == pytest.approx(-sum(row[y] for row, y in zip(expected, data.labels, strict=True)), rel=1e-5)
    assert made.model.training
    assert made.step(*some(), 1e-300)[0] != made.step(*some(), 1e-300)[0]


def test_bf16_is_close_to_float32_and_not_equal():
    full, half = engine(torch.float32), engine(torch.float32, precision="bf16")
    for step in range(5):
        (loss, norm), (loss16, norm16) = full.step(*some(step), 0.01), half.step(*some(step), 0.01)
        assert loss16 == pytest.approx(loss, abs=0.03)
        assert norm16 == pytest.approx(norm, rel=0.05)
        assert loss16 != loss
    assert {a.dtype for a in half.params.values()} == {np.dtype(np.float32)}, "the weights themselves stay in float32"


def test_random_weights_follow_the_seed():
    seeds = [ClassifierEngine(config(seed=seed), MODEL, None).params["linear.weight"] for seed in (1, 1, 2)]
    assert np.array_equal(seeds[0], seeds[1])
    assert not np.array_equal(seeds[0], seeds[2])


def test_restored_it_goes_on_bit_for_bit():
    first = engine(torch.float32, dropout=0.3, average=0.8)
    for step in range(3):
        first.step(*some(step), 0.01)
    dumped, weights = first.dump(), first.params
    assert not [name for name in dumped if name.startswith("state")]
    expected = first.step(*some(4), 0.01), first.step(*some(5), 0.01)
    torch.manual_seed(99)  # another process begins with other random numbers
    second = ClassifierEngine(config(average=0.8), MODEL | {"dropout": 0.3}, weights)
    second.restore(dumped, 3)
    assert (second.step(*some(4), 0.01), second.step(*some(5), 0.01)) == expected
    for name in ("params", "averaged"):
        assert_close(getattr(second, name), getattr(first, name), 0)


def test_out_of_memory_is_one_line_that_says_what_to_change(monkeypatch):
    made = engine()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(made, "_backward", full)
    with pytest.raises(CourseError, match=r"^cpu has not enough memory for batch_size 7, hidden 6; raise --accumulate, or"):
        made.step(*some(), 0.1)
