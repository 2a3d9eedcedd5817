"""The scan against its definition, in numbers and gradients; MinGRU against its equations; what positive gates cannot do."""

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import assert_close

from course_lib import roofline, torch_model, torch_scan
from course_lib.shapes import ShapeError
from course_lib.torch_scan import SCANS, WINDOW, MinGRU, ScanLanguageModel, scan_loop

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import scan_speed

FAST = [name for name in SCANS if name != "loop"]
LENGTHS = [*range(1, 34), 63, 64, 65, 100, 129]

every_scan = pytest.mark.parametrize("name", FAST)


def recurrence(T, shape=(2, 3), seed=0, low=-1.0, high=1.0, dtype=torch.float64):
    """a in [low, high), b and h0 normal, all asking for gradients."""
    rng = np.random.default_rng(seed)
    arrays = rng.uniform(low, high, (T, *shape)), rng.normal(size=(T, *shape)), rng.normal(size=shape)
    return tuple(torch.tensor(array, dtype=dtype).requires_grad_() for array in arrays)


def by_numpy(a, b, h):
    """The definition, on arrays."""
    hs = []
    for a_t, b_t in zip(a, b, strict=True):
        h = a_t * h + b_t
        hs.append(h)
    return np.stack(hs)


def arrays(tensors):
    return tuple(tensor.detach().numpy() for tensor in tensors)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (1, 1), (2, 1, 3)], ids=str)
def test_the_same_states_for_every_length(name, shape):
    for T in LENGTHS:
        inputs = recurrence(T, shape, seed=T)
        assert_close(SCANS[name](*inputs).detach().numpy(), by_numpy(*arrays(inputs)), 1e-12)
        zero = by_numpy(*arrays(inputs[:2]), np.zeros(shape))
        assert_close(SCANS[name](*inputs[:2]).detach().numpy(), zero, 1e-12)


@every_scan
def test_the_same_gradients_for_every_length(name):
    for T in LENGTHS:
        inputs = recurrence(T, seed=T)
        upstream = torch.tensor(np.random.default_rng(T).normal(size=(T, 2, 3)))
        got, expected = (torch.autograd.grad(run(*inputs), inputs, upstream) for run in (SCANS[name], scan_loop))
        assert_close(arrays(got), arrays(expected), 1e-11)


@every_scan
@pytest.mark.parametrize("T", [1, 2, 7, 18])
def test_gradcheck(name, T):
    assert torch.autograd.gradcheck(SCANS[name], recurrence(T, seed=T))


@every_scan
@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 1), (-1, -1), (0, 1e-30), (1 - 1e-7, 1)], ids=str)
def test_extreme_gates(name, low, high):
    """In float32 against float64: forgetting all, keeping all, alternating signs, and products that underflow to 0."""
    a, b, h0 = recurrence(1000, seed=1, low=low, high=high, dtype=torch.float32)
    a, upstream = (
        torch.where(torch.rand(a.shape, generator=torch.Generator().manual_seed(0)) < 0.5, a, a.abs()),
        torch.ones_like(b),
    )
    single = [t.detach().requires_grad_() for t in (a, b, h0)]
    double = [t.detach().double().requires_grad_() for t in single]
    got, expected = SCANS[name](*single), scan_loop(*double)
    grads = torch.autograd.grad(got, single, upstream), torch.autograd.grad(expected, double, upstream.double())
    for mine, right in zip((got, *grads[0]), (expected, *grads[1]), strict=True):
        mine, right = mine.detach().numpy(), right.detach().numpy()
        assert np.isfinite(mine).all()
        assert np.abs(mine - right).max() <= 1e-5 * np.abs(right).max()


@every_scan
def test_nothing_is_divided_where_gates_vanish(name):
    """One gate of 0 in the middle: what was before it has no effect, in value and in gradient, exactly."""
    a, b, h0 = recurrence(37, seed=2)
    a = a.detach().clone()
    a[20] = 0
    a.requires_grad_()
    hs = SCANS[name](a, b, h0)
    da, db, dh0 = torch.autograd.grad(hs[20:].sum(), (a, b, h0))
    assert not dh0.any() and not db[:20].any() and not da[:20].any()
    assert torch.equal(hs[20], b[20])
    assert da[20].all()  # the gate itself would let something in


@every_scan
def test_arguments_of_any_layout_are_left_alone(name):
    a, b, h0 = (tensor.detach() for tensor in recurrence(29, (4, 6), seed=3))
    both = torch.cat([a, b], dim=2)
    a, b = both.chunk(2, dim=2)  # not contiguous
    before = both.clone()
    expected = scan_loop(a, b, h0)
    turned = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (a, b)]
    for arguments in ((a, b, h0), (*turned, h0)):
        assert torch.allclose(SCANS[name](*arguments), expected, atol=1e-12)
    assert torch.equal(both, before)


@every_scan
def test_two_parts_are_the_whole(name):
    a, b, h0 = recurrence(41, seed=4)
    whole = SCANS[name](a, b, h0)
    for cut in (1, 16, 40):
        first = SCANS[name](a[:cut], b[:cut], h0)
        both = torch.cat([first, SCANS[name](a[cut:], b[cut:], first[-1])])
        assert torch.allclose(both, whole, atol=1e-12)


def test_the_composition_is_associative_and_a_step_of_two():
    a, b, h = recurrence(3, (), seed=5)

    def then(one, two):
        return two[0] * one[0], two[0] * one[1] + two[1]

    x, y, z = zip(a, b, strict=True)
    assert torch.allclose(torch.stack(then(then(x, y), z)), torch.stack(then(x, then(y, z))))
    A, B = then(then(x, y), z)
    assert torch.allclose(A * h + B, scan_loop(a, b, h)[-1])


def test_what_is_kept_for_the_backward_pass():
    a, b, h0 = recurrence(50, (4, 5))
    for name in ("parallel", "chunked"):
        saved = SCANS[name](a, b, h0).grad_fn.saved_tensors
        assert sum(tensor.numel() for tensor in saved) == 2 * 50 * 20 + 20


@pytest.mark.parametrize("name", SCANS)
def test_wrong_shapes_are_named(name):
    a, b, h0 = recurrence(5)
    for arguments, message in [
        ((a[1:], b, h0), "a, b: expected one shape (T, ...) with T of at least 1, got (4, 2, 3) and (5, 2, 3)"),
        ((a[:0], b[:0], h0), "a, b: expected one shape (T, ...) with T of at least 1, got (0, 2, 3) and (0, 2, 3)"),
        ((a, b, h0[0]), "h0: expected shape (2, 3), that of a step, got (3,)"),
    ]:
        with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
            SCANS[name](*arguments)


def gru(*sizes, seed=0, **options):
    torch.manual_seed(seed)
    module = MinGRU(*sizes, **options).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def gru_by_numpy(module, x, state, lengths=None):
    """The equations of the docstring, stream by stream and step by step."""
    (T, N, _), finals = x.shape, np.array(state)
    lengths = [T] * N if lengths is None else lengths
    for depth, layer in enumerate(module.layers):
        (W, c), H = arrays((layer.weight, layer.bias)), module.hidden_size
        out = np.zeros((T, N, H))
        for n in range(N):
            h = state[depth, n]
            for t in range(lengths[n]):
                z = 1 / (1 + np.exp(-(W[:H] @ x[t, n] + c[:H])))
                h = out[t, n] = (1 - z) * h + z * (W[H:] @ x[t, n] + c[H:])
            finals[depth, n] = h
        x = out
    return x, finals


@pytest.mark.parametrize("method", SCANS)
@pytest.mark.parametrize("lengths", [None, (11, 0, 4, 1)], ids=["all steps", "lengths"])
def test_min_gru_is_its_equations(method, lengths):
    rng = np.random.default_rng(0)
    module, x, state = gru(3, 5, 2, method=method), rng.normal(size=(11, 4, 3)), rng.normal(size=(2, 4, 5))
    given = None if lengths is None else torch.tensor(lengths)
    got = module(torch.tensor(x), torch.tensor(state), given)
    assert_close(arrays(got), gru_by_numpy(module, x, state, lengths), 1e-11)
    got = module(torch.tensor(x), lengths=given)
    assert_close(arrays(got), gru_by_numpy(module, x, 0 * state, lengths), 1e-11)


def test_padding_receives_and_gives_no_gradient():
    module, x = gru(3, 5, 2), torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    hs, state = module(x, lengths=torch.tensor([9, 4]))
    (hs.sum() + state.sum()).backward()
    assert not x.grad[4:, 1].any()
    assert x.grad[:4, 1].all()
    spoiled = x.detach().clone()
    spoiled[4:, 1] = torch.nan
    again, final = module(spoiled, lengths=torch.tensor([9, 4]))
    assert torch.equal(again[:, 0], hs[:, 0]) and torch.equal(again[:4, 1], hs[:4, 1]) and torch.equal(final, state)


def test_steps_are_the_scan():
    module, x = gru(3, 5, 2), torch.randn(12, 4, 3, dtype=torch.float64)
    state = torch.randn(2, 4, 5, dtype=torch.float64)
    hs, final = module(x, state)
    for t in range(12):
        h, state = module.step(x[t], state)
        assert torch.allclose(h, hs[t], atol=1e-12)
    assert torch.allclose(state, final, atol=1e-12)


def test_parameters_and_time_scales():
    D, H = 7, 30
    module = MinGRU(D, H, 2)
    assert sum(p.numel() for p in module.parameters()) == 2 * H * (D + 1) + 2 * H * (H + 1)
    remembered = 1 / torch.sigmoid(module.layers[1].bias[:H])
    assert 1 < remembered.min() < 1.5 and 70 < remembered.max() < 100
    assert torch.allclose(remembered[1:] / remembered[:-1], torch.tensor(100 ** (1 / (H + 1))), rtol=1e-3)


def test_a_gate_near_one_keeps_its_digits():
    """1 - z in float32 is 0 for a logit of 20; the gate that multiplies h is 2e-9."""
    module = MinGRU(1, 1)
    with torch.no_grad():
        module.layers[0].weight[:], module.layers[0].bias[:] = torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, 0.0])
        hs, _ = module(torch.full((1, 1, 1), 20.0), torch.full((1, 1, 1), 1e9))
    assert hs.item() == pytest.approx(1e9 * 2.0611536e-9, rel=1e-5)


def test_under_autocast_the_state_stays_in_float32():
    torch.manual_seed(0)
    module, x = MinGRU(4, 6, 2), torch.randn(300, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        hs, state = module(x)
    assert hs.dtype == state.dtype == torch.float32
    exact = module(x)[0]
    assert (hs - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MinGRU(0, 3), "input_size: expected an integer of at least 1, got 0"),
        (lambda: MinGRU(2, 3, method="fast"), "method: expected one of auto, loop, parallel, chunked, got 'fast'"),
        (lambda: MinGRU(2, 3)(torch.ones(4, 5, 1)), "x: axis D should be 2 (D = 2 from W), got shape (4, 5, 1)"),
        (lambda: MinGRU(2, 3)(torch.ones(4, 5, 2), torch.ones(5, 3)), "state: expected (L, N, H) = (1, 5, 3), got (5, 3)"),
        (
            lambda: MinGRU(2, 3)(torch.ones(4, 5, 2), lengths=torch.ones(4, dtype=torch.long)),
            "lengths: expected shape (5,), N = 5 from x, got (4,)",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def model(seed=0, **options):
    torch.manual_seed(seed)
    return ScanLanguageModel(11, 6, 8, 2, **options).double()


def test_a_language_model_carries_its_state():
    net, tokens = model(), torch.randint(0, 11, (17, 3))
    whole, final = net(tokens, net.initial_state(3))
    assert whole.shape == (17, 3, 11)
    for cut in (1, 2, WINDOW, 16):
        first, state = net(tokens[:cut], net.initial_state(3))
        second, state = net(tokens[cut:], state)
        assert torch.allclose(torch.cat([first, second]), whole, atol=1e-12)
        for mine, right in zip(sum(state, ()), sum(final, ()), strict=True):
            assert mine.shape[0] == 3 and torch.allclose(mine, right, atol=1e-12)


def test_a_language_model_sees_no_future_and_no_other_stream():
    net, tokens = model(), torch.randint(0, 11, (17, 3))
    changed = tokens.clone()
    changed[9, 1] = (changed[9, 1] + 1) % 11
    before, after = (net(t, net.initial_state(3))[0] for t in (tokens, changed))
    differs = (before != after).any(dim=2)
    assert not differs[:9].any() and not differs[:, [0, 2]].any()
    assert differs[9:, 1].all()


def test_a_language_model_reaches_every_parameter_and_learns():
    net = model().float()
    tokens = torch.arange(40).reshape(20, 2) * 3 % 11
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(100):
        logits, _ = net(tokens[:-1], net.initial_state(2))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())
        optimizer.step()
    assert loss < 0.1


def test_the_functions_of_torch_model_take_it():
    net, tokens = model(), np.arange(30) * 3 % 11
    nats, count = torch_model.evaluate(net, tokens, streams=1, steps=7)
    step, state, total = torch_model.make_step(net), net.initial_state(1), 0.0
    for before, after in itertools.pairwise(tokens):
        log_probs, state = step(np.array([before]), state)
        total -= log_probs[0, after]
    assert count == 29
    assert nats == pytest.approx(total, rel=1e-9)


def test_dropout_only_in_training():
    net, tokens = model(dropout=0.5), torch.randint(0, 11, (5, 2))
    one, two = (net(tokens, net.initial_state(2))[0] for _ in range(2))
    assert not torch.equal(one, two)
    net.eval()
    one, two = (net(tokens, net.initial_state(2))[0] for _ in range(2))
    assert torch.equal(one, two)


def changes_of_sign(values):
    signs = np.sign(values)
    return int((signs[1:] != signs[:-1]).sum())


@pytest.mark.parametrize("H", [1, 2, 5])
def test_positive_gates_cannot_alternate(H):
    """On a constant input a readout w·h_t + c is a sum of H powers a_i^t and a constant: it changes sign H times at most.

    Parity on 1, 1, 1, ... changes at each step. (Descartes' rule for sums of exponentials.)
    """
    rng, most = np.random.default_rng(H), 0
    for seed in range(300):
        module = gru(1, H, seed=seed)
        hs, _ = module(torch.ones(200, 1, 1, dtype=torch.float64), 3 * torch.randn(1, 1, H, dtype=torch.float64))
        readout = hs[:, 0].detach().numpy() @ rng.normal(size=H)
        above = readout - rng.uniform(readout.min(), readout.max())
        changes = changes_of_sign(above[np.abs(above) > 1e-9 * np.abs(readout).max()])  # the rest is rounding
        assert changes <= H
        most = max(most, changes)
    assert most >= 1


def test_one_negative_gate_is_parity():
    """a = 1 - 2 x flips the sign at each 1: h = 1 after an even number of ones, -1 after an odd number, for any T."""
    bits = torch.randint(0, 2, (5000, 3), generator=torch.Generator().manual_seed(0))
    for name in FAST:
        h = SCANS[name](1.0 - 2 * bits, torch.zeros(5000, 3), torch.ones(3))
        assert torch.equal((1 - h) / 2, (bits.cumsum(0) % 2).float()), name


def test_a_latch_is_exact():
    """Where the gate is open the unit takes the input, elsewhere it keeps it: what one layer does for any T."""
    T, rng = 3000, np.random.default_rng(0)
    write, value = rng.random(T) < 0.02, rng.normal(size=T)
    write[0] = True
    module = MinGRU(2, 1).double()
    with torch.no_grad():
        module.layers[0].weight[:] = torch.tensor([[2000.0, 0.0], [0.0, 1.0]])
        module.layers[0].bias[:] = torch.tensor([-1000.0, 0.0])
    hs, _ = module(torch.tensor(np.stack([write, value], axis=1))[:, None])
    last = np.maximum.accumulate(np.where(write, np.arange(T), 0))
    assert np.abs(hs[:, 0, 0].detach().numpy() - value[last]).max() < 1e-12


def test_auto_takes_the_tree_where_a_step_is_small(monkeypatch):
    taken = []
    for name in ("scan_parallel", "scan_chunked"):
        monkeypatch.setattr(torch_scan, name, lambda *arguments, name=name: taken.append(name))
    for numbers in (torch_scan.SMALL - 1, torch_scan.SMALL):
        torch_scan.scan(torch.ones(3, numbers), torch.ones(3, numbers))
    assert taken == ["scan_parallel", "scan_chunked"]


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(scan_speed, "SECONDS", 0.0)
    monkeypatch.setattr(scan_speed, "ROUNDS", 2)


def test_the_benchmark_checks_and_times_everything(hasty, capsys):
    section = scan_speed.main(["--quick", "--device", "cpu"])
    out = capsys.readouterr().out
    assert section["complete"]
    assert len(section["rows"]) == 2 * 2 * 7
    for row in section["rows"]:
        assert row["ms"] > 0 and row["tokens_per_s"] == pytest.approx(row["T"] * 2 / row["ms"] * 1e3, rel=1e-2)
        assert row["ratio"] == 1 if row["subject"] == "LSTM" else row["error"] < 1e-5
    assert "## GPU\n\nNot measured yet.\n" in out
    assert "| 12 | " in out


def test_the_benchmark_gives_a_wrong_scan_no_time(hasty, monkeypatch, capsys):
    """Right forwards, wrong in one gradient."""
    backward = torch_scan.LinearScan.backward

    def wrong(ctx, g):
        da, dh, dh0, nothing = backward(ctx, g)
        return da, dh, dh0 * 1.01, nothing

    monkeypatch.setattr(torch_scan.LinearScan, "backward", staticmethod(wrong))
    rows = scan_speed.main(["--quick", "--device", "cpu"])["rows"]
    for row in rows:
        if row["subject"] in ("scan parallel", "scan chunked"):
            assert row["note"].startswith("wrong: off by 0.01") and "ms" not in row
        else:
            assert row["ms"] > 0
    assert "* T = 5: scan parallel: wrong: off by 0.01, allowed 1e-05" in capsys.readouterr().out


def test_the_benchmark_says_what_does_not_fit(hasty, capsys):
    section = scan_speed.main(["--quick", "--device", "cpu", "--minutes", "0"])
    assert {row["note"] for row in section["rows"]} == {"not measured: no time is left"}
    assert "* T = 5: all: not measured: no time is left" in capsys.readouterr().out
    rows = scan_speed.one_size((5, 2, 4), "cpu", 1e-6)
    assert all(row["note"].startswith("not measured: 2 rounds need about") for row in rows)


def test_the_benchmark_keeps_the_other_section(hasty, monkeypatch, tmp_path):
    home, away = tmp_path / "home", tmp_path / "away"
    home.mkdir()
    away.mkdir()
    monkeypatch.setattr(scan_speed, "RECORD", home / "scan_speed.json")
    cpu = scan_speed.main(["--quick", "--device", "cpu", "--write", "--out", str(home)])
    scan_speed.write(away, "cuda", cpu | {"device": "some GPU"})
    both = json.loads((away / "scan_speed.json").read_text(encoding="utf-8"))
    assert both["cpu"] == json.loads(json.dumps(cpu))
    text = (away / "scan_speed.md").read_text(encoding="utf-8")
    assert text == scan_speed.page(both)
    assert "some GPU" in text and "Not measured yet" not in text


def test_the_record_in_the_repository_fits_its_page():
    record = roofline.RECORD.with_name("scan_speed.json")
    if not record.exists():
        pytest.skip("nothing recorded yet")
    assert record.with_suffix(".md").read_text(encoding="utf-8") == scan_speed.page(
        json.loads(record.read_text(encoding="utf-8"))
    )
