"""Two processes take the step of one: gradients in float64, weights of a run; a run of two is resumed bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from course_process import TEXT
from problems import assert_close
from safetensors.numpy import load_file

from course_lib import checkpoint, language_model
from course_lib.budget import Config
from course_lib.errors import CourseError
from course_lib.torch_engine import TorchEngine
from course_lib.torch_parallel import Group
from course_lib.trees import leaves, map_tree

V, N, T = 11, 6, 5
GRADIENTS = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from safetensors.numpy import save_file
from test_torch_parallel import gradients
loss, norm, arrays, rank = gradients(**{options!r})
if rank == 0:
    save_file(arrays | {{"loss": loss, "norm": norm}}, "found.safetensors")
"""


def gradients(steps=3, **options):
    """Loss, norm, gradients and carried state after some steps of a language model in float64, all of the joint batch."""
    sizes = {"hidden": 6, "embedding": 4, "batch_size": N, "window": T, "steps": 9}
    config = Config("x", **sizes, engine="torch", device="cpu", clip=1e9, **options)
    params = map_tree(lambda a: a + 0.05, language_model.init(V, 4, 6, 2, "lstm", 1, np.float64))
    engine, rng = TorchEngine(config, params), np.random.default_rng(0)
    for _ in range(steps):
        loss, norm = engine.step(rng.integers(0, V, (T, N)), rng.integers(0, V, (T, N)), 0.01)
    arrays = {f"gradient {k}": w.grad.numpy() for k, w in enumerate(engine.weights)}
    state = {name: array for name, array in engine.dump().items() if name.startswith("state")}
    return np.array(loss), np.array(norm), arrays | state, engine.rank


def torchrun(*command, folder, processes=2, **options):
    """Start a command in so many processes; its output is read by whoever waits."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COURSE_PROGRESS": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*launch, *map(str, command)], cwd=folder, env=environment, **pipes, **options)


def train(*options, folder, processes=2, **how):
    course = Path(sys.executable).parent / "course"
    common = ["--data", "mine.txt", "--engine", "torch", "--device", "cpu", "--hidden", 8, "--batch-size", 4, "--window", 16]
    begin = [] if "--resume" in options else common
    launch = ("--no-python", course, "train")
    return torchrun(*launch, *begin, *options, folder=folder, processes=processes, **how)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"weight_decay": 0.1, "average": 0.9}], ids=str)
def test_gradients_of_two_processes_are_those_of_one(tmp_path, options):
    script = tmp_path / "script.py"
    script.write_text(GRADIENTS.format(tests=str(Path(__file__).parent), options=options), encoding="utf-8")
    run = torchrun(script, folder=tmp_path)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    found = load_file(tmp_path / "found.safetensors")
    loss, norm, wanted, _ = gradients(**options)
    assert found.keys() == {*wanted, "loss", "norm"}
    for name, array in (wanted | {"loss": loss, "norm": norm}).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)


def content(folder):
    found = checkpoint.load(folder / "last.safetensors")
    return {str(k): array for k, array in enumerate(leaves(found.params))} | found.extra


def finish(run):
    output, errors = run.communicate(timeout=180)
    assert run.returncode == 0, errors
    return output


def test_a_run_of_two_processes(tmp_path):
    """It ends with the weights of one process; stopped or killed, and resumed, with the bits of an undisturbed one."""
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    output = finish(train("--steps", 24, "--out", "two", folder=tmp_path))
    assert output.count("best held-out") == 1, "only one of them talks"
    assert "2 processes" in output
    finish(train("--steps", 24, "--out", "one", folder=tmp_path, processes=1))
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    for name in (name for name in one if not name.startswith("random")):
        assert_close(two[name], one[name], 1e-4)

    dropping = ("--dropout", 0.3, "--steps", 500)
    whole = content_after(tmp_path, "whole", None, dropping)
    for how in (signal.SIGTERM, signal.SIGKILL):
        parts = content_after(tmp_path, how.name, how, dropping)
        assert whole.keys() == parts.keys()
        assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def content_after(folder, name, how, options):
    """Of a run, disturbed by a signal to torchrun and all that it started if there is one, and then resumed."""
    run = train(*options, "--out", name, folder=folder)
    if how:
        history = folder / name / "history.jsonl"
        while not history.exists() or len(history.read_text(encoding="utf-8").splitlines()) < 3:
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        if how == signal.SIGTERM:
            run.send_signal(how)
        else:
            subprocess.run(["pkill", "-KILL", "-f", f"course train .*--out {name}$"], check=True)  # torchrun and its processes
        run.communicate(timeout=60)
        assert run.returncode != 0
        run = train("--resume", "--out", name, folder=folder)
    finish(run)
    return content(folder / name)


def test_shares():
    group = Group(torch.device("cpu"))
    assert (group.rank, group.size, group.total(2.5, 3)) == (0, 1, [2.5, 3.0])
    group.size = 3
    dealt = []
    for group.rank in range(3):
        dealt.append(group.share(8).tolist())
    assert dealt == [[0, 1, 2], [3, 4, 5], [6, 7]]
    with pytest.raises(CourseError, match="--batch-size: expected a multiple of the 3 processes, got 8"):
        group.check_divides(8)
