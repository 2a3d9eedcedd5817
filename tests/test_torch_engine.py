"""Training in torch: parts of a batch add up, bf16 stays close, a stopped run goes on bit for bit, errors are one line."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from course_process import TEXT, course, the_error
from problems import assert_close

from course_lib import checkpoint, language_model
from course_lib.budget import Config
from course_lib.errors import CourseError
from course_lib.torch_engine import TorchEngine, find_device
from course_lib.training import Trainer
from course_lib.trees import leaves, map_tree

V, N, T = 11, 7, 5


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(TEXT, encoding="utf-8")


def config(**changes) -> Config:
    given = {"data": "mine.txt", "hidden": 8, "embedding": 4, "batch_size": 4, "window": 16, "steps": 45, "seed": 3}
    return Config(**given | {"engine": "torch", "device": "cpu"} | changes)


def engine(dtype=np.float64, layers=2, **changes):
    params = map_tree(lambda a: a + 0.05, language_model.init(V, 4, 6, layers, "lstm", 1, dtype))
    return TorchEngine(config(batch_size=N, window=T, **changes), params)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N))


def content(folder: Path) -> dict:
    """Every array of a run's last checkpoint, and what its record says apart from the times and the command."""
    found = checkpoint.load(folder / "last.safetensors")
    arrays = {f"model {i}": leaf for i, leaf in enumerate(leaves(found.params))} | found.extra
    progress = {k: v for k, v in found.record["progress"].items() if k != "seconds"}
    return {"progress": progress} | {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_the_batch(parts):
    whole, cut = engine(), engine(accumulate=parts)
    seen = []
    cut.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    for step in range(3):
        assert cut.step(*batch(step), 0.01) == pytest.approx(whole.step(*batch(step), 0.01), rel=1e-6)
    assert_close(cut.params, whole.params, 1e-6)
    assert_close(cut.dump()["state.1.c"], whole.dump()["state.1.c"], 1e-6)
    assert len(seen) == 3 * parts
    assert sum(seen) == 3 * N
    assert max(seen) == -(-N // parts)


def test_no_gradient_reaches_the_window_before():
    """The carried state is detached: memory and time do not grow, and the gradient is that of truncated BPTT."""
    mine = engine()
    mine.step(*batch(0), 0.01)
    assert not any(leaf.requires_grad for leaf in leaves(mine.state))
    params, state = mine.params, map_tree(lambda s: s.double().numpy(), mine.state)
    mine.adam.zero_grad()
    mine._backward(*batch(1))
    _, grads, _ = language_model.loss_and_grads(params, *batch(1), state)
    assert_close(map_tree(lambda p: p.grad.numpy(), mine.model.params()), grads, 1e-6)


def test_bf16_is_close_to_float32_and_not_equal():
    full, half = engine(np.float32), engine(np.float32, precision="bf16")
    for step in range(5):
        (loss, norm), (loss16, norm16) = full.step(*batch(step), 0.01), half.step(*batch(step), 0.01)
        assert loss16 == pytest.approx(loss, abs=0.02)
        assert norm16 == pytest.approx(norm, rel=0.05)
        assert loss16 != loss
    assert {a.dtype for a in leaves(half.params)} == {np.dtype(np.float32)}, "the weights themselves stay in float32"
    assert {a.dtype for n, a in half.dump().items() if n[:2] in ("m.", "v.")} == {np.dtype(np.float32)}


@pytest.mark.parametrize("changes", [{"dropout": 0.4, "layers": 2}, {"cell": "gru"}, {"precision": "bf16", "accumulate": 2}])
@pytest.mark.parametrize("at", [1, 20, 36, 40])
def test_a_stopped_run_goes_on_bit_for_bit(text, changes, at):
    Trainer(config(**changes), Path("whole")).run()
    trainer = Trainer(config(**changes), Path("cut"))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(lambda p, _: p.step == at and signal.raise_signal(signal.SIGINT))
    torch.manual_seed(99)  # another process begins with other random numbers
    Trainer.resume(Path("cut")).run()
    assert content(Path("cut")) == content(Path("whole"))
    best = [checkpoint.load(Path(name) / "best.safetensors") for name in ("cut", "whole")]
    assert best[0].record["validation_nats"] == best[1].record["validation_nats"]
    assert best[0].record["engine"] == f"torch {torch.__version__} on cpu, {changes.get('precision', 'fp32')}"


def test_the_seed_decides(text):
    for name, changes in {"a": {}, "b": {}, "c": {"seed": 4}}.items():
        Trainer(config(steps=6, dropout=0.5, layers=2, **changes), Path(name)).run()
    assert content(Path("a")) == content(Path("b"))
    assert content(Path("a")) != content(Path("c"))


def test_a_run_learns_what_numpys_run_learns(text):
    scores = {}
    for name in ("numpy", "torch"):
        run = Trainer(config(engine=name, steps=120, lr=0.02), Path(name))
        scores[name] = run.run().best
    assert scores["torch"] == pytest.approx(scores["numpy"], abs=0.01)
    assert scores["torch"] < 2.7, "guessing is 3.3"


def test_weights_of_either_engine_load_in_the_command(text, tmp_path):
    options = ("--hidden", 8, "--embedding", 4, "--batch-size", 4, "--window", 16, "--steps", 5, "--out", "run")
    result = course("train", "--data", "mine.txt", "--engine", "torch", "--device", "auto", *options, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"torch {torch.__version__} on " in result.stdout
    assert course("generate", "the", "--checkpoint", "run", "--length", 5, folder=tmp_path).returncode == 0
    assert course("eval", "run", folder=tmp_path).returncode == 0


def test_errors_of_the_command_are_one_line(text, tmp_path):
    begin = ("train", "--data", "mine.txt", "--steps", 3, "--out", "run")
    expected = {
        ("--engine", "torch", "--device", "tpu"): "--device: expected auto, cpu, cuda or cuda:1, got 'tpu'",
        ("--device", "cuda"): "--device: expected auto or cpu with --engine numpy, got cuda",
        ("--precision", "bf16"): "--precision: expected fp32 with --engine numpy, got bf16",
        ("--accumulate", "2"): "--accumulate: expected 1 with --engine numpy, got 2",
        ("--engine", "torch", "--accumulate", "33"): "--accumulate: expected 1 to --batch-size, got 33",
    }
    if not torch.cuda.is_available():
        expected["--engine", "torch", "--device", "cuda"] = "--device cuda: torch sees 0 CUDA devices here"
    for options, message in expected.items():
        assert message in the_error(course(*begin, *options, folder=tmp_path))
    assert not Path("run").exists()


def test_out_of_memory_is_one_line_that_says_what_to_change(text, monkeypatch):
    trainer = Trainer(config(), Path("run"))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(trainer.engine, "_backward", full)
    with pytest.raises(CourseError, match=r"^cpu has not enough memory for batch_size 4, window 16, hidden 8; raise --acc"):
        trainer.run()
    assert checkpoint.load(Path("run") / "last.safetensors")


def test_a_run_of_one_engine_is_not_resumed_by_the_other(text):
    Trainer(config(steps=3), Path("run")).run()
    assert Trainer.resume(Path("run")).config.engine == "torch"


def test_devices():
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(CourseError, match="use --device auto or cpu"):
        find_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_what_the_cpu_learns(text, precision):
    scores = [
        Trainer(config(device=device, precision=precision, steps=120, lr=0.02), Path(device)).run().best
        for device in ("cpu", "cuda")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


@pytest.mark.gpu
def test_a_gpu_without_enough_memory_is_one_line(text):
    torch.cuda.set_per_process_memory_fraction(1e-3)  # of an H200: 140 MB
    try:
        with pytest.raises(CourseError, match="not enough memory for batch_size 4, window 16, hidden 4096; raise --accumulate"):
            Trainer(config(device="cuda", hidden=4096, layers=2), Path("run"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
