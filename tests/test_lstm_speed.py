"""The benchmark's promises: no time for a wrong backend, failures stay in their cell, two machines' records live together."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course_lib import roofline, torch_stack
from course_lib.errors import CourseError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import lstm_speed  # noqa: E402
from lstm_parts import page, record, subjects  # noqa: E402

ON_CPU = ("loop", "fused", "cudnn", "auto", "nn.LSTM")


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch):
    ceilings = {"fp32": roofline.Ceilings(2e11, 2e10, 1e-6), "bf16": roofline.Ceilings(4e11, 2e10, 1e-6)}
    monkeypatch.setattr(roofline, "measure_ceilings", lambda device, precision: ceilings[precision])
    monkeypatch.setattr(lstm_speed, "SECONDS", 0.0)
    monkeypatch.setattr(lstm_speed, "ROUNDS", 2)
    monkeypatch.setattr(lstm_speed, "QUICK", [(9, 4, 6)])
    return ceilings


def measure(*arguments):
    """A run over one small size; its section, and its rows by (precision, mode, backend)."""
    section = lstm_speed.main(["--device", "cpu", "--quick", *arguments])
    return section, {(row["precision"], row["mode"], row["backend"]): row for row in section["rows"]}


def test_all_that_a_cpu_can_run_is_right_and_timed(capsys):
    section, rows = measure()
    out = capsys.readouterr().out
    assert section["complete"]
    assert len(rows) == 2 * 2 * 7
    for (precision, mode, backend), row in rows.items():
        assert ("ms" in row) == (backend in ON_CPU)
        if backend not in ON_CPU:
            assert row["note"]
            assert f"* {backend}, H = 6: {row['note']}" in out
            continue
        assert row["note"] is None
        assert 0 <= max(row["error_numpy"], row["error_nn"]) < {"fp32": 1e-5, "bf16": 5e-2}[precision]
        assert row["tokens_per_s"] == pytest.approx(9 * 4 / (row["ms"] / 1e3), rel=1e-2)
        assert row["us_per_step"] == pytest.approx(1e3 * row["ms"] / 9, rel=1e-2)
        flop = (3 if mode == "training" else 1) * 2 * 9 * 4 * 24 * 12
        assert row["matrix_share"] == pytest.approx(
            flop / (row["ms"] / 1e3) / {"fp32": 2e11, "bf16": 4e11}[precision], rel=1e-2
        )
        assert row["reread_share"] > row["memory_share"] > 0
        assert row["rounds"] == 2
        assert row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1]
        assert (row["memory_bytes"] is None) == (mode == "forward")
    assert rows["fp32", "training", "nn.LSTM"]["ratio"] == 1
    assert {row["backend"] for row in section["growth"]} == set(ON_CPU)
    assert all(row["T"] == [9, 18, 36] and row["ratio"][0] == 1 for row in section["growth"])
    assert "## GPU\n\nNot measured yet.\n" in out


def test_numbers_of_a_row():
    cells = {name: lstm_speed.cell(None) for name in ("fused", "nn.LSTM")}
    cells["nn.LSTM"]["seconds"]["training"] = np.array([2.0, 4.0, 9.0])
    cells["fused"]["seconds"]["training"] = np.array([1.0, 2.0, 3.0])
    cells["fused"] |= {"error_numpy": 1.23456e-7, "prepare_s": 9.0}
    row = record.row((4, 5, 6, 7), "bf16", "training", cells, "fused", {"matrix": 1e4, "memory": 1e5})
    once, again = (roofline.bytes_lstm(4, 5, 6, 7, 2, training=True, on_chip=on_chip) for on_chip in (True, False))
    assert row == {
        **{"precision": "bf16", "T": 4, "N": 5, "D": 6, "H": 7, "mode": "training", "backend": "fused", "note": None},
        **{"error_numpy": 1.235e-7, "prepare_s": 9.0, "ms": 2000.0, "us_per_step": 5e5, "tokens_per_s": 10.0},
        **{"matrix_share": record.rounded(3 * 2 * 20 * 28 * 13 / 2 / 1e4), "memory_share": record.rounded(once / 2e5)},
        **{"reread_share": record.rounded(again / 2e5), "rounds": 3, "memory_bytes": None},
        **{"ratio": 2.0, "ratio_quartiles": [2.0, 2.5]},
    }


def test_a_wrong_backend_gets_no_time(monkeypatch, capsys):
    right = torch_stack.RUNNERS["fused"]

    def swapped(x, initial, params, lengths=None):
        H = params.W_hh.shape[1]
        rows = torch.arange(4 * H).reshape(4, H)[[1, 0, 2, 3]].flatten()  # f where i belongs
        return right(x, initial, type(params)(*(part[rows] for part in params)), lengths)

    monkeypatch.setitem(torch_stack.RUNNERS, "fused", swapped)
    _, rows = measure("--backends", "fused", "loop")
    for (_, _, backend), row in rows.items():
        assert ("ms" in row) == (backend != "fused")
        if backend == "fused":
            assert row["note"].startswith("wrong: hs is off by ")
    assert "* fused, H = 6: wrong: hs is off by" in capsys.readouterr().out


def test_a_wrong_gradient_is_found(monkeypatch):
    right = torch_stack.RUNNERS["fused"]

    def deaf(x, initial, params, lengths=None):
        return right(x, initial._replace(c=initial.c.detach() * 1.0 + 0.9 * (initial.c - initial.c.detach())), params, lengths)

    monkeypatch.setitem(torch_stack.RUNNERS, "fused", deaf)
    _, rows = measure("--backends", "fused")
    assert rows["fp32", "training", "fused"]["note"] == "wrong: dc_0 is off by 0.1 of its norm, allowed 1e-05"


def test_not_a_number_is_wrong():
    ones = [np.ones(2)] * len(subjects.NAMES)
    assert subjects.worst_error(ones, ones, 0) == 0
    with pytest.raises(ArithmeticError, match=r"^db is off by nan of its norm, allowed 0\.1$"):
        subjects.worst_error([*ones[:-1], np.array([1, np.nan])], ones, 0.1)


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), "out of memory"),
        (RuntimeError("no kernel\n  image"), "failed: RuntimeError: no kernel"),
    ],
)
@pytest.mark.parametrize("when", [0, 2])
def test_a_failure_stays_in_its_cell(monkeypatch, error, note, when):
    right, calls = torch_stack.RUNNERS["loop"], []

    def sometimes(x, *rest):
        calls.append(len(x))
        if calls.count(9) > when:  # 9 steps: the size that is measured
            raise error
        return right(x, *rest)

    monkeypatch.setitem(torch_stack.RUNNERS, "loop", sometimes)
    _, rows = measure("--backends", "loop", "fused")
    assert rows["fp32", "training", "loop"]["note"] == note
    assert "ms" not in rows["fp32", "training", "loop"]
    assert rows["fp32", "training", "fused"]["ratio"] > 0


@pytest.mark.filterwarnings("default")  # as in a run of the script
def test_a_backend_that_hands_over_to_another_is_not_timed_under_its_name(monkeypatch):
    monkeypatch.setattr(subjects, "unavailable", lambda backend, given: None)
    monkeypatch.setattr(lstm_speed, "unavailable", lambda backend, given: None)
    monkeypatch.setattr(torch_stack, "why_not", lambda x, H: "too large for this machine")
    _, rows = measure("--backends", "triton")
    note = "failed: UserWarning: too large for this machine; 'fused' is used instead"
    assert {row["note"] for (_, _, backend), row in rows.items() if backend == "triton"} == {note}


def test_what_does_not_fit_into_the_time_says_so(capsys):
    section, rows = measure("--minutes", "0", "--backends", "loop")
    assert section["complete"]
    assert all(row["note"].startswith("not measured: 2 rounds need about") for row in rows.values())
    out = capsys.readouterr().out
    assert "### Growth with T, forward + backward\n\nNot measured yet.\n" in out
    assert "* growth with T: not measured: 2 rounds need about" in out


def test_a_size_that_fails_as_a_whole_is_named_and_the_others_are_measured(monkeypatch, capsys):
    monkeypatch.setattr(lstm_speed, "QUICK", [(9, 4, 6), (9, 4, 10**7), (9, 4, 7)])
    here = subjects.problem

    def small(sizes, *rest):
        if sizes[3] == 10**7:
            raise torch.OutOfMemoryError("no room")
        return here(sizes, *rest)

    monkeypatch.setattr(lstm_speed, "problem", small)
    section, _ = measure("--backends", "loop")
    assert {row["H"] for row in section["rows"]} == {6, 7}
    assert "\n* fp32, (T, N, H) = (9, 4, 10000000): out of memory\n" in capsys.readouterr().out


def test_bf16_that_is_slower_is_left_out(known_ceilings):
    known_ceilings["bf16"] = known_ceilings["fp32"]._replace(matrix=1e11)
    _, rows = measure("--backends", "loop")
    note = "not measured: on this CPU bf16 products run at 0.50 of fp32's speed"
    assert {row["note"] for (precision, *_), row in rows.items() if precision == "bf16"} == {note}
    assert rows["fp32", "training", "loop"]["ms"] > 0


def test_sections_of_two_machines_live_together(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(roofline, "RECORD", tmp_path / "home" / "lstm_speed.json")
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    cpu, _ = measure("--write", "--out", str(home), "--backends", "loop")
    assert roofline.recorded("cpu") == json.loads(json.dumps(cpu))
    assert roofline.recorded("cuda") is None
    assert len(roofline.recorded_rows("cpu", backend="loop", precision="fp32")) == 2
    graph = {**cpu["rows"][0], "backend": "graph", "precision": "tf32"}
    versions = {**cpu["versions"], "cuda": "13.0", "cudnn": 91900}
    bound, ceilings = {"tf32": cpu["bounds"]["fp32"]}, {"tf32": cpu["ceilings"]["fp32"]}
    gpu = {**cpu, "device": "some GPU", "rows": [graph], "versions": versions, "ceilings": ceilings, "bounds": bound}
    record.write(away, "cuda", {**gpu, "complete": False})  # as on the other machine: what is at home comes along
    both = json.loads((away / "lstm_speed.json").read_text(encoding="utf-8"))
    assert both["cpu"] == roofline.recorded("cpu")
    text = (away / "lstm_speed.md").read_text(encoding="utf-8")
    assert text == page.page(both)
    assert "## GPU\n\nNot measured yet." not in text
    assert "some GPU; python" in text
    assert "The run was stopped before its end." in text
    assert sorted(path.name for path in away.iterdir()) == ["lstm_speed.json", "lstm_speed.md"]
    assert capsys.readouterr().out == ""


def test_a_record_that_cannot_be_written_is_left_as_it_was(monkeypatch, tmp_path):
    (tmp_path / "lstm_speed.json").write_text("{}", encoding="utf-8")
    section, _ = measure("--backends", "loop")
    monkeypatch.setattr(Path, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CourseError, match="No space left"):
        record.write(tmp_path, "cpu", section)
    assert [path.name for path in tmp_path.iterdir()] == ["lstm_speed.json"]


def test_a_cuda_graph_computes_what_fused_does(monkeypatch):
    """On a CPU only its wiring: nothing is recorded, the function itself is called."""
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda function, arguments: function)
    given = subjects.problem((9, 4, 3, 5), "fp32", "cpu")
    subject = subjects.Subject("graph", given)
    assert subjects.worst_error(subject.results(), subjects.by_numpy(given), 1e-5) < 1e-5
    assert subjects.memory_bytes(subject, "training", "cpu") == 0


class HostEvent:
    """A CUDA event, on the clock of the host."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 1e3 * (other.at - self.at)


def test_the_wiring_of_a_gpu_run(monkeypatch, known_ceilings, capsys):
    """Everything that a GPU run calls, on the CPU: no kernel is tested by this, but no line of ours fails there by a slip."""
    known_ceilings["tf32"] = known_ceilings["fp32"]
    allocated = iter(range(100, 10**6, 100))
    fakes = {
        "is_available": lambda: True,
        "get_device_name": lambda: "no GPU at all",
        "get_device_properties": lambda index: SimpleNamespace(total_memory=80 * 2**30),
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": lambda: next(allocated),
        "max_memory_allocated": lambda: next(allocated),
        "memory_reserved": lambda: next(allocated),
        "Event": HostEvent,
        "make_graphed_callables": lambda function, arguments: function,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    here = subjects.problem
    monkeypatch.setattr(lstm_speed, "problem", lambda sizes, precision, device: here(sizes, precision, "cpu"))
    only = subjects.unavailable
    monkeypatch.setattr(lstm_speed, "unavailable", lambda backend, given: only(backend, given._replace(device="cuda")))
    section, rows = measure("--device", "cuda")
    assert section["device"] == "no GPU at all, 80 GiB"
    for (precision, _, backend), row in rows.items():
        if backend == "triton":
            assert row["note"].startswith("the kernels need an NVIDIA GPU")
        elif precision == "tf32" and backend == "loop":
            assert row["note"] == "not measured: TF32 changes products only, see fused"
        else:
            assert row["note"] is None, row
            assert row["memory_bytes"] == 100
    assert len(rows) == 3 * 2 * 7
    out = capsys.readouterr().out
    assert "In float32 rows TF32 is off" in out
    assert "| tf32 | H = 6 | graph |" in out


def test_memory_kept_for_the_backward_pass_is_counted_once():
    T, N, D, H = 9, 4, 3, 5
    subject = subjects.Subject("fused", subjects.problem((T, N, D, H), "fp32", "cpu"))
    gates, hs, cs = T * N * 4 * H, (T + 1) * N * H, (T + 1) * N * H
    assert subjects.memory_bytes(subject, "training", "cpu") == 4 * (gates + hs + cs)
    assert subjects.memory_bytes(subject, "forward", "cpu") is None


def test_the_script_runs_from_anywhere_and_names_what_is_wrong(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "lstm_speed.py"), "--out", "nowhere", "--write"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("error: --out: no folder nowhere")


def test_the_record_in_the_repository_fits_its_page():
    if not roofline.RECORD.exists():
        pytest.skip("nothing recorded yet")
    text = roofline.RECORD.with_suffix(".md").read_text(encoding="utf-8")
    assert text == page.page(json.loads(roofline.RECORD.read_text(encoding="utf-8")))
