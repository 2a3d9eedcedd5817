"""What a run is asked to do is checked by name; its learning rate and its evaluations follow from its budget."""

import pytest

from course_lib.budget import Config, Progress


def config(**changes) -> Config:
    return Config(**{"data": "mine.txt", "steps": 45} | changes)


def test_the_rate_falls_with_the_budget():
    rates = [config(steps=None, minutes=m).peak_lr() for m in (0.01, 0.5, 2, 20, 1000)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (2e-2, 1.5e-3)
    assert config(lr=0.3).peak_lr() == 0.3
    assert Progress(step=3).fraction(config(steps=4)) == 0.75
    assert Progress(seconds=90).fraction(config(steps=None, minutes=2)) == 0.75
    assert Progress(seconds=900).fraction(config(steps=None, minutes=2)) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "cell": ["tree", ""],
        "hidden": [0, -1, 65537],
        "layers": [0, 101],
        "embedding": [0, 10**30],
        "batch_size": [0],
        "window": [0],
        "lr": [0, -1, float("nan"), float("inf")],
        "dropout": [-0.1, 1, float("nan")],
        "clip": [0, float("nan")],
        "minutes": [0, -1, float("nan"), float("inf"), 1e300],
        "steps": [0],
        "seed": [-1],
        "engine": ["jax", ""],
        "device": ["cuda"],
        "precision": ["fp16", "bf16"],
        "accumulate": [0, 2, 33],
    }.items(),
)
def test_a_value_out_of_range_is_named(name, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
            config(**{name: value})


def test_what_only_torch_can_do_needs_the_engine():
    asked = config(engine="torch", device="cuda:1", precision="bf16", accumulate=32)
    assert (asked.device, asked.precision, asked.accumulate) == ("cuda:1", "bf16", 32)
    with pytest.raises(ValueError, match="accumulate: expected 1 to --batch-size, got 33"):
        config(engine="torch", accumulate=33)
