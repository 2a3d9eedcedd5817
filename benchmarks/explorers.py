"""What a redraw of each explorer costs: seconds after each control is moved, on real models; the aim is at most 0.2 s.

Run: python benchmarks/explorers.py, about 20 seconds. Each control must change its picture.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from course_lib import checkpoint, language_model
from course_lib.explorer import Explorer
from course_lib.gate_explorer import GateExplorer
from course_lib.gradient_explorer import GradientExplorer
from course_lib.sampling_explorer import SamplingExplorer

TEXT = "Return the name (a string) of the first line.\nRaise an error (see above) if there is none.\n"
ROUNDS = 20  # moves of each control


def explorers() -> list[Explorer]:
    """The three explorers, as the lessons open them: real weights, and texts of some length."""
    model = checkpoint.load("python_docs")
    tokens = model.tokenizer.encode(TEXT)
    logits, _, _ = language_model.forward(model.params, tokens[:, None], language_model.initial_state(model.params, 1))
    log_probs = logits[:, 0] - np.logaddexp.reduce(logits[:, 0], axis=1, keepdims=True)
    names = [model.tokenizer.decode(np.array([token])) for token in range(model.tokenizer.size)]
    gates = GateExplorer(model, TEXT, {"bracket": 347, "other": 225}, behind=26)
    gradients = GradientExplorer(model.params.embedding[tokens[:50]])
    return [gates, gradients, SamplingExplorer(TEXT, log_probs, names, behind=30, temperature=1.5, top_p=0.9)]


def places(control: object) -> list:
    """Positions to move a control to, one after another, each another than the one before."""
    options = getattr(control, "options", None)
    if options:
        values = [option[1] if isinstance(option, tuple) else option for option in options]
        return [values[k % len(values)] for k in range(1, ROUNDS + 1)]
    steps = np.linspace(control.min, control.max, ROUNDS)
    return [type(control.value)(value) for value in steps]


def seconds(explorer: Explorer, control: object) -> tuple[float, float, int]:
    """Median and largest CPU seconds of a move, and how many moves changed the picture."""
    taken, changed, start = [], 0, control.value
    for value in places(control):
        before, began = explorer.image.value, time.process_time()
        control.value = value
        taken.append(time.process_time() - began)
        changed += explorer.image.value != before
    control.value = start
    return statistics.median(taken), max(taken), changed


def main() -> None:
    """Print a row for each control of each explorer."""
    print(f"{'explorer':18}{'control':14}{'median s':>9}{'largest s':>10}  of {ROUNDS} moves, pictures changed")
    for explorer in explorers():
        for name, control in explorer.controls.items():
            median, largest, changed = seconds(explorer, control)
            assert changed, f"{type(explorer).__name__}: {name} changes nothing"
            print(f"{type(explorer).__name__:18}{name:14}{median:9.3f}{largest:10.3f}  {changed}")


if __name__ == "__main__":
    main()
