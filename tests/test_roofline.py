"""Counts against torch's own counter and against arrays laid out one by one; timing in turn; what was recorded."""

import json
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib import roofline
from course_lib.cells import LSTMParams, LSTMState
from course_lib.roofline import Ceilings, bytes_lstm, flop_lstm, interleaved, measure_ceilings, recurrent_intensity
from course_lib.torch_sequence import run_fused, run_loop

T, N, D, H = 5, 3, 7, 2


def size(*shapes, itemsize):
    return sum(itemsize * math.prod(shape) for shape in shapes)


@pytest.mark.parametrize("run", [run_loop, run_fused])
@pytest.mark.parametrize("training", [False, True])
def test_operations_are_those_that_torch_counts(run, training):
    shapes = (T, N, D), (N, H), (N, H), (4 * H, D), (4 * H, H), (4 * H,)
    x, h, c, *weights = (torch.randn(shape, requires_grad=True) for shape in shapes)
    in_place = {torch.ops.aten.addmm_: lambda c, a, b, **_: 2 * math.prod(a) * b[1]}  # which torch does not count
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        hs, final = run(x, LSTMState(h, c), LSTMParams(*weights))
        if training:
            torch.autograd.backward((hs, *final), [torch.ones_like(part) for part in (hs, *final)])
    assert counter.get_total_flops() == flop_lstm(T, N, D, H, training)


@pytest.mark.parametrize(("itemsize", "wide"), [(4, 4), (2, 4), (8, 8)])
@pytest.mark.parametrize("reads", [1, T])
def test_bytes_are_those_of_the_arrays_of_each_stage(itemsize, wide, reads):
    x, a, h, W_ih, W_hh = (T, N, D), (T, N, 4 * H), (T, N, H), (4 * H, D), (4 * H, H)
    gates, da, dx, dhs = a, a, x, h
    forward = [(x, W_ih), (a,), (a, *[W_hh] * reads), (h,)]
    backward = [(gates,), (gates, dhs, *[W_hh] * reads), (da,), (da, W_ih), (dx,), (da, x), (W_ih,), (da, h), (W_hh,)]
    once = sum(size(*stage, itemsize=itemsize) for stage in forward)
    more = sum(size(*stage, itemsize=itemsize) for stage in backward) + 2 * size(h, itemsize=wide)  # c, written and read
    assert bytes_lstm(T, N, D, H, itemsize, on_chip=reads == 1) == once
    assert bytes_lstm(T, N, D, H, itemsize, training=True, on_chip=reads == 1) == once + more


@pytest.mark.parametrize("on_chip", [False, True])
def test_intensity_of_a_step_follows_from_the_counts(on_chip):
    recurrent = flop_lstm(1, N, D, H) - 2 * N * 4 * H * D
    growth = bytes_lstm(2, N, D, H, 2, on_chip=on_chip) - bytes_lstm(1, N, D, H, 2, on_chip=on_chip)
    loop = growth - size((N, D), (N, 4 * H), itemsize=2)  # without the input product
    assert recurrent_intensity(N, H, 2, on_chip) == pytest.approx(recurrent / loop)


def test_intensity_grows_with_the_batch_or_with_the_units():
    assert recurrent_intensity(1, 4096) == pytest.approx(2 / 4, rel=1e-2)
    assert recurrent_intensity(8, 4096, 2) == pytest.approx(8 * 2 / 2, rel=1e-2)
    assert {recurrent_intensity(n, 256, on_chip=True) for n in (1, 64)} == {1.6 * 256 / 4}


def test_the_roof():
    machine = Ceilings(matrix=200.0, memory=10.0, call=1.0)
    assert machine.ridge == 20
    assert [machine.attainable(x) for x in (1, 19, 20, 300)] == [10, 190, 200, 200]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ceilings_of_this_machine(precision):
    matrix, memory, call = measure_ceilings("cpu", precision)
    assert 1e8 < matrix < 1e15
    assert 1e8 < memory < 1e14
    assert 1e-8 < call < 1e-3


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match=r"^precision: expected one of fp32, tf32, bf16, got 'fp8'$"):
        measure_ceilings("cpu", "fp8")


class Clock:
    """Time that passes only when a call says so."""

    def __init__(self, monkeypatch, **costs):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(roofline.time, "perf_counter", lambda: self.now)
        self.functions = {name: self.function(name, cost) for name, cost in costs.items()}

    def function(self, name, cost):
        def call():
            self.calls.append(name)
            self.now += cost

        return call


def test_functions_take_turns(monkeypatch):
    clock = Clock(monkeypatch, a=1.0, b=0.25)
    times = interleaved(clock.functions, rounds=3, seconds=0)
    assert "".join(clock.calls) == "ab" + "ab" + "ba" + "ab"  # a warm-up, then three rounds
    assert {name: list(taken) for name, taken in times.items()} == {"a": [1.0] * 3, "b": [0.25] * 3}


def test_what_has_run_before_is_not_warmed_up(monkeypatch):
    clock = Clock(monkeypatch, a=1.0)
    interleaved(clock.functions, rounds=5, seconds=0, warm=True)
    assert len(clock.calls) == 5


def test_rounds_go_on_while_there_is_time(monkeypatch):
    clock = Clock(monkeypatch, a=1.0, b=1.0)
    assert len(interleaved(clock.functions, rounds=2, seconds=20)["a"]) == 1 + 10


def test_short_functions_are_repeated(monkeypatch):
    clock = Clock(monkeypatch, short=1e-4, long=1.0)
    times = interleaved(clock.functions, rounds=4, seconds=0)
    assert len(times["short"]) == len(times["long"]) == 4
    assert clock.calls.count("short") == 2 + 4 * 50
    np.testing.assert_allclose(times["short"], 1e-4)


def test_rounds_that_would_take_too_long_are_not_begun(monkeypatch):
    clock = Clock(monkeypatch, a=10.0)
    with pytest.raises(TimeoutError, match=r"^5 rounds need about 40 s more, 30 s are left$"):
        interleaved(clock.functions, rounds=5, warm=True, limit=30)
    assert len(clock.calls) == 1


def test_a_gpu_is_timed_by_its_own_clock(monkeypatch):
    said = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            said.append("record")

        def synchronize(self):
            said.append("wait")

        def elapsed_time(self, other):
            return 4000.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: said.append("wait for all"))
    times = interleaved({"a": lambda: said.append("call")}, "cuda:0", rounds=2, seconds=0, warm=True)
    assert list(times["a"]) == [4.0, 4.0]
    assert said == ["wait for all", "record", "call", "record", "wait"] * 2


def test_tf32_is_allowed_only_where_it_is_asked_for():
    def allowed():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = allowed()
    for precision, expected in (("tf32", (True, True)), ("fp32", (False, False)), ("bf16", (False, False))):
        with pytest.raises(KeyError), roofline.products_in(precision):
            assert allowed() == expected
            raise KeyError
        assert allowed() == before


def test_what_was_recorded(monkeypatch, tmp_path):
    path = tmp_path / "record.json"
    monkeypatch.setattr(roofline, "RECORD", path)
    assert roofline.recorded() is None
    path.write_text("{", encoding="utf-8")
    assert roofline.recorded() is None
    rows = [
        {"backend": name, "H": units, "ms": ms} for name, units, ms in (("loop", 2, 1.0), ("loop", 3, 2.0), ("fused", 3, 3.0))
    ]
    rows.append({"backend": "graph", "H": 3, "note": "CUDA only"})
    path.write_text(json.dumps({"cpu": {"rows": rows}}), encoding="utf-8")
    assert roofline.recorded("cpu") == {"rows": rows}
    assert roofline.recorded("cuda") is None
    assert roofline.recorded_rows("cpu", H=3) == rows[1:3]
    assert roofline.recorded_rows("cpu", H=3, backend="fused") == [rows[2]]
    assert roofline.recorded_rows("cuda", H=3) == []
