"""Training steps on pairs: parts of a batch add up, bf16 stays close, smoothing teaches without being reported."""

import copy

import numpy as np
import pytest
import torch
from problems import assert_close

from course_lib.budget import Config
from course_lib.errors import CourseError
from course_lib.seq2seq import EOS, PAD, Seq2Seq, shifted, token_loss
from course_lib.translation import Encoded, Source, batch, evaluate
from course_lib.translation_engine import TranslationEngine
from course_lib.trees import map_tree

N, V = 7, 11
MODEL = {"source_size": 9, "target_size": V, "embedding_size": 5, "hidden_size": 6, "num_layers": 2}


def config(**changes) -> Config:
    given = {"data": "", "task": "translate", "engine": "torch", "device": "cpu", "batch_size": N, "steps": 9, "hidden": 6}
    return Config(**given | changes)


def params(**changes) -> dict:
    rng = np.random.default_rng(2)
    model = Seq2Seq(**MODEL | changes)
    return map_tree(lambda p: rng.normal(0, 0.5, tuple(p.shape)).astype(np.float32), model.params())


def engine(dtype=torch.float64, dropout=0.0, **changes) -> TranslationEngine:
    made = TranslationEngine(config(**changes), {"model": MODEL | {"dropout": dropout}}, params())
    made.model.to(dtype)
    return made


def pairs(seed=0, n=N) -> Encoded:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, (2, n))
    return Encoded([rng.integers(3, 9, k) for k in lengths[0]], [np.append(rng.integers(3, V, k), EOS) for k in lengths[1]])


def some(seed=0) -> tuple[Source, torch.Tensor]:
    return batch(*pairs(seed))


def gradients(made: TranslationEngine) -> dict:
    return map_tree(lambda p: p.grad.numpy().copy(), made.model.params())


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_the_batch(parts):
    whole, cut, seen = engine(), engine(accumulate=parts), []
    cut.model.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].shape, inputs[1])))
    for step in range(3):
        expected, got = (made.step(*some(step), 0.01) for made in (whole, cut))
        assert got == pytest.approx(expected, rel=1e-12)
        assert_close(gradients(cut), gradients(whole), 1e-12)
    assert len(seen) == 3 * parts
    assert sum(shape[1] for shape, _ in seen) == 3 * N
    assert max(shape[1] for shape, _ in seen) == -(-N // parts)
    assert all(shape[0] == lengths.max() for shape, lengths in seen), "no part reads more padding than its longest needs"


def test_a_batch_smaller_than_the_parts():
    source, targets = some()
    few = Source(source.tokens[:, :2], source.lengths[:2]), targets[:, :2]
    whole, cut = engine(), engine(accumulate=5)
    assert cut.step(*few, 0.01) == pytest.approx(whole.step(*few, 0.01), rel=1e-12)


def test_a_step_descends_the_mean_loss_of_real_tokens():
    made = engine()
    source, targets = some()
    expected = token_loss(made.model(source.tokens, source.lengths, shifted(targets)), targets)
    loss, norm = made.step(source, targets, 0.01)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    assert norm > 0
    assert made.step(source, targets, 0.01)[0] < loss
    assert made.state == ()
    made.reset_state()
    assert made.state == ()
    assert not [name for name in made.dump() if name.startswith("state")]


def test_smoothing_changes_the_gradient_and_not_the_reported_loss():
    plain, smooth = engine(), engine(smoothing=0.2)
    losses = [made.step(*some(), 0.01)[0] for made in (plain, smooth)]
    assert losses[0] == losses[1]
    model, (source, targets) = copy.deepcopy(engine().model), some()
    token_loss(model(source.tokens, source.lengths, shifted(targets)), targets, 0.2).backward()
    expected = map_tree(lambda p: p.grad.numpy(), model.params())
    norm = np.sqrt(sum((g**2).sum() for g in expected.values()))
    got = gradients(smooth)
    assert_close(got, map_tree(lambda g: g * min(1, 1 / norm), expected), 1e-6)
    assert np.abs(got["bias"] - gradients(plain)["bias"]).max() > 1e-3


def test_bf16_is_close_to_float32_and_not_equal():
    full, half = engine(torch.float32), engine(torch.float32, precision="bf16")
    for step in range(5):
        (loss, norm), (loss16, norm16) = full.step(*some(step), 0.01), half.step(*some(step), 0.01)
        assert loss16 == pytest.approx(loss, abs=0.03)
        assert norm16 == pytest.approx(norm, rel=0.05)
        assert loss16 != loss
    assert {a.dtype for a in half.params.values()} == {np.dtype(np.float32)}, "the weights themselves stay in float32"


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_less_than_full_teacher_forcing_trains_on_other_inputs(ratio):
    full, own = engine(), engine(teacher_forcing=ratio)
    losses = [made.step(*some(), 0.01)[0] for made in (full, own)]
    assert losses[0] != losses[1]
    first = losses[1]
    for _ in range(30):
        last = own.step(*some(), 0.02)[0]
    assert last < first - 0.3
    assert evaluate(own.model, pairs())[0] == own.evaluate(pairs())[0], "held-out pairs are always teacher-forced"


def test_dropout_is_in_steps_and_not_in_evaluation():
    made = engine(dropout=0.5)
    first, second = (made.evaluate(pairs(3, 20)) for _ in range(2))
    assert first == second
    assert made.model.training
    assert made.step(*some(), 1e-300)[0] != made.step(*some(), 1e-300)[0]


def test_weights_are_copies_and_random_ones_follow_the_seed():
    start = params()
    made = TranslationEngine(config(), {"model": MODEL}, start)
    kept = map_tree(np.copy, start)
    made.step(*some(), 0.1)
    assert_close(start, kept, 0)
    seeds = [TranslationEngine(config(seed=seed), {"model": MODEL}, None).params["combine.weight"] for seed in (1, 1, 2)]
    assert np.array_equal(seeds[0], seeds[1])
    assert not np.array_equal(seeds[0], seeds[2])


def test_restored_it_goes_on_bit_for_bit():
    first = engine(torch.float32, dropout=0.3)
    for step in range(3):
        first.step(*some(step), 0.01)
    dumped, weights = first.dump(), first.params
    expected = first.step(*some(4), 0.01), first.step(*some(5), 0.01)
    torch.manual_seed(99)  # another process begins with other random numbers
    second = TranslationEngine(config(), {"model": MODEL | {"dropout": 0.3}}, weights)
    second.restore(dumped, 3)
    assert (second.step(*some(4), 0.01), second.step(*some(5), 0.01)) == expected
    assert_close(second.params, first.params, 0)


def test_out_of_memory_is_one_line_that_says_what_to_change(monkeypatch):
    made = engine()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(made, "_backward", full)
    with pytest.raises(CourseError, match=r"^cpu has not enough memory for batch_size 7, hidden 6; raise --accumulate, or"):
        made.step(*some(), 0.1)


def test_nothing_is_learned_from_padding():
    """More rows of padding under sources and targets: the same step."""
    source, targets = some()
    more = torch.full((3, N), PAD)
    plain, padded = engine(), engine()
    got = padded.step(Source(torch.cat([source.tokens, more]), source.lengths), torch.cat([targets, more]), 0.01)
    assert got == pytest.approx(plain.step(source, targets, 0.01), rel=1e-12)
    assert_close(gradients(padded), gradients(plain), 1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("bf16", 5e-2)])
@pytest.mark.parametrize("attention", ["none", "additive", "multiplicative"])
def test_a_gpu_steps_as_the_cpu_does(attention, precision, bound):
    """Losses, norms and weights of three steps, and the evaluation after them."""
    model = {"model": MODEL | {"attention": attention, "dropout": 0.0}}
    made = [
        TranslationEngine(config(device=device, precision=precision), model, params(attention=attention))
        for device in ("cpu", "cuda")
    ]
    for step in range(3):
        on_cpu, on_gpu = (each.step(*some(step), 0.01) for each in made)
        assert on_gpu == pytest.approx(on_cpu, rel=bound)
    assert_close(made[1].params, made[0].params, bound)
    (expected, count), (nats, counted) = (each.evaluate(pairs(5)) for each in made)
    assert counted == count
    assert nats == pytest.approx(expected, rel=bound)
