"""Learners' notebooks, good, bad and hostile, are graded side by side; each costs only itself."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from learners import LESSON, NAMES, code, notebook, save, solution, solved

from course_lib import grading, grading_plan
from course_lib.grading import Graded, Limits, Row

LIMITS = Limits(cell_seconds=5, minutes=1, memory=1.2, output=1)
FIRST, SECOND, THIRD, FOURTH, FIFTH = NAMES
KNOWN = grading_plan.lessons()

DEAF = """
import time
def lstm_step_forward(x, prev, params):
    return None
while True:
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        pass
"""
HOG = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; x = b'1' * 700_000_000; time.sleep(100)"])
kept = b"2" * 700_000_000
time.sleep(100)
{solution(SECOND)}
"""
ESCAPED = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "1000"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({file!r}, "w").write(str(os.getpid()))
        time.sleep(1000)
    os._exit(0)
"""
THREAD = """
import threading
def talk():
    while True:
        print("on and on " * 50)
threading.Thread(target=talk, daemon=True).start()
"""
CLUTTER = [  # what a learner may have left; each is over when the next one starts
    "while True:\n    pass",
    "while True:\n    print('x' * 1000)",
    "raise SystemExit(3)",
    "this is no Python",
    "class A:\n    def __repr__(self):\n        raise ValueError('no picture')\nA()",
    "input('name? ')",
    f"import json, os; os.write(1, json.dumps(dict(event='judged', name='{FOURTH}', status='solved')).encode() + b'\\n')",
    "check = print; print('\\u2713 gru_step_forward: equal to the library\\'s on 20 random inputs')",
]
PATCHED = f"""
from course_lib import exercises
exercises._report = lambda *a: exercises.Report(True, ["\\u2713 all right"])
exercises.EXERCISES[{FOURTH!r}] = exercises.EXERCISES["perplexity"]
np.array_equal = lambda *a: True
"""


def digest(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_all(folder: Path) -> None:
    save(folder, "right", notebook(solved()))
    save(folder, "stubs", notebook())
    slip = solution(SECOND).replace("np.tanh(a_g)", "sigmoid(a_g)")
    assert slip != solution(SECOND)
    save(folder, "slips", notebook(solved(**{FIRST: f"def {FIRST}(x, prev, params):\n    return 1 / 0", SECOND: slip})))
    messy = notebook(solved(**{FOURTH: f"def {FOURTH}(x, prev, params):\n    raise NotImplementedError"}))
    messy["cells"][1:1] = [code(text) for text in CLUTTER]
    save(folder, "messy", messy)
    endless = f"def {SECOND}(x, prev, params):\n    while True:\n        print('again')"
    save(folder, "endless", notebook(solved(**{SECOND: endless})))
    save(folder, "deaf", notebook(solved(**{SECOND: DEAF})))
    save(folder, "hog", notebook(solved(**{SECOND: HOG})))
    save(folder, "exits", notebook(solved(**{SECOND: f"import os\nos._exit(0)\n{solution(SECOND)}"})))
    save(folder, "dies", notebook(solved(), before={THIRD: "import os\nos.kill(os.getpid(), 9)"}))
    save(folder, "orphan", notebook(solved(), before={THIRD: "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(100)"}))
    save(folder, "escaped", notebook(solved(), before={FIFTH: ESCAPED.format(file=str(folder / "escaped" / "pid.txt"))}))
    fakes = {FIRST: None, SECOND: f"print('\u2713 {SECOND}: equal to the library\\'s on 20 random inputs')", FOURTH: None}
    borrowed = f"def {THIRD}(*a):\n    from course_lib import variants as v\n    return getattr(v, '{THIRD}')(*a)"
    written = {FIRST: solution(FIRST), THIRD: borrowed, FOURTH: f"{FOURTH} = cells.{FOURTH}"}
    save(folder, "fakes", notebook(written, checks=fakes))
    save(folder, "patched", notebook({FIRST: solution(FIRST)}, before={FIRST: PATCHED}))
    whole = save(folder, "cut", notebook(solved())).read_bytes()
    save(folder, "cut", whole[: len(whole) // 2])
    save(folder, "nothing", "")
    save(folder, "thread", notebook(solved(), before={SECOND: THREAD}))
    (folder / "right" / "helper.txt").write_text("beside the notebook")


@pytest.fixture(scope="module")
def class_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("class")
    write_all(folder)
    return folder


def run(folder: Path, learners: tuple[str, ...] = (), jobs: int = 4, limits: Limits = LIMITS) -> dict[str, Graded]:
    paths = grading_plan.find_notebooks(folder)
    plans = [grading_plan.plan(path, folder, KNOWN) for path in paths if not learners or path.parent.name in learners]
    said: list[Graded] = []
    found = grading.grade(plans, limits, jobs, said.append)
    assert sorted(said) == sorted(found) and [g.notebook for g in found] == [p.notebook for p in plans]
    return {graded.learner: graded for graded in found}


@pytest.fixture(scope="module")
def graded(class_folder: Path) -> dict[str, Graded]:
    before = digest(class_folder)
    os.environ["COURSE_GRADE_TEST_PARENT"] = str(os.getpid())  # all that the notebooks start inherits it
    try:
        found = run(class_folder)
    finally:
        del os.environ["COURSE_GRADE_TEST_PARENT"]
    (class_folder / "escaped" / "pid.txt").rename(class_folder.parent / "pid.txt")
    assert digest(class_folder) == before  # learners' files are as they were
    return found


def statuses(graded: Graded) -> list[str]:
    assert [row.name for row in graded.rows] == list(NAMES)
    return [row.status for row in graded.rows]


def row(graded: Graded, name: str) -> Row:
    return next(row for row in graded.rows if row.name == name)


def test_solved_and_not_written(graded: dict[str, Graded]) -> None:
    assert statuses(graded["right"]) == ["solved"] * 5 and graded["right"].status == "ok"
    assert statuses(graded["stubs"]) == ["not written"] * 5 and graded["stubs"].failures == []
    first = graded["right"].rows[0]
    assert (first.learner, first.lesson, first.number, first.difficulty, first.minutes) == ("right", LESSON, "4.1", "easy", 6)
    assert all(r.note == "" and r.line.startswith("✓") for r in graded["right"].rows)


def test_a_known_mistake_has_its_hint_and_an_exception_is_an_error(graded: dict[str, Graded]) -> None:
    assert statuses(graded["slips"]) == ["error", "wrong", "solved", "solved", "solved"]
    assert row(graded["slips"], SECOND).hint == "the candidate goes through tanh, not σ"
    assert "your function raised ZeroDivisionError" in row(graded["slips"], FIRST).line


def test_what_a_learner_left_behind_costs_one_cell(graded: dict[str, Graded]) -> None:
    assert statuses(graded["messy"]) == ["solved", "solved", "solved", "not written", "solved"]
    failures = graded["messy"].failures
    assert [failure.partition(":")[0] for failure in failures] == [f"code cell {k}" for k in range(2, 8)]
    assert graded["messy"].status == "ok"
    assert failures[0].endswith("not finished after 5 s") and failures[1].endswith("more than 1 MB of output")
    assert "a `check` of its own" in row(graded["messy"], FOURTH).note


def test_a_thread_that_prints_for_ever_costs_nothing_that_is_solved(graded: dict[str, Graded]) -> None:
    assert statuses(graded["thread"]) == ["solved"] * 5 and graded["thread"].status == "ok"


def test_a_function_without_end_costs_one_exercise(graded: dict[str, Graded]) -> None:
    assert statuses(graded["endless"]) == ["solved", "time", "solved", "solved", "solved"]


def test_what_cannot_be_interrupted_ends_the_notebook(graded: dict[str, Graded]) -> None:
    assert statuses(graded["deaf"]) == ["solved", "time", "not reached", "not reached", "not reached"]
    assert graded["deaf"].status.startswith("time: not finished after 5 s; it could not be interrupted, in code cell 4")


def test_memory_of_all_processes_together(graded: dict[str, Graded]) -> None:
    assert statuses(graded["hog"]) == ["solved", "memory", "not reached", "not reached", "not reached"]
    assert graded["hog"].status == "memory: more than 1.2 GB, in code cell 4"


def test_a_dead_kernel_or_worker_keeps_what_was_solved(graded: dict[str, Graded]) -> None:
    assert statuses(graded["exits"]) == ["solved", "error", "not reached", "not reached", "not reached"]
    assert statuses(graded["dies"]) == ["solved", "solved", "not reached", "not reached", "not reached"]
    assert statuses(graded["orphan"]) == ["solved", "solved", "not reached", "not reached", "not reached"]
    assert graded["dies"].status == "died: the kernel died, in code cell 6"
    assert graded["orphan"].status.startswith("died: its worker process was ended")


def test_no_process_is_left(graded: dict[str, Graded], class_folder: Path) -> None:
    assert statuses(graded["escaped"]) == ["solved"] * 5
    assert not psutil.pid_exists(int((class_folder.parent / "pid.txt").read_text()))
    left = []
    for process in psutil.process_iter():
        try:
            parent = process.environ().get("COURSE_GRADE_TEST_PARENT")
        except (psutil.Error, OSError):
            continue
        left += [process] if parent == str(os.getpid()) and process.pid != os.getpid() else []
    assert left == []


def test_a_fake_check_does_not_count(graded: dict[str, Graded]) -> None:
    assert statuses(graded["fakes"]) == ["solved", "not written", "solved", "not written", "not written"]
    assert row(graded["fakes"], FIRST).note == "check cell deleted"
    assert row(graded["fakes"], SECOND).note == "check cell edited"
    assert row(graded["fakes"], THIRD).note == f"calls course_lib.variants.{THIRD}"
    assert f"is course_lib.cells.{FOURTH}" in row(graded["fakes"], FOURTH).note


def test_a_patched_library_is_put_back(graded: dict[str, Graded]) -> None:
    assert statuses(graded["patched"]) == ["solved"] + ["not written"] * 4
    assert "course_lib.exercises._report" in row(graded["patched"], SECOND).note
    assert "EXERCISES" in row(graded["patched"], SECOND).note


def test_files_that_are_no_notebooks(graded: dict[str, Graded]) -> None:
    for learner, told in (("cut", "no JSON: damaged or cut off"), ("nothing", "the file is empty")):
        assert graded[learner].status == f"unreadable: {told}"
        assert statuses(graded[learner]) == ["error"] * 5 and graded[learner].solved == 0


def test_one_at_a_time_gives_the_same(graded: dict[str, Graded], class_folder: Path) -> None:
    few = ("fakes", "exits")
    again = run(class_folder, few, jobs=1)
    for learner in few:
        assert [r._replace(seconds=0) for r in again[learner].rows] == [r._replace(seconds=0) for r in graded[learner].rows]
        assert again[learner].status == graded[learner].status


def test_the_whole_notebooks_time(tmp_path: Path) -> None:
    save(tmp_path, "slow", notebook(solved(), before={SECOND: "import time\ntime.sleep(100)"}))
    found = run(tmp_path, limits=LIMITS._replace(minutes=0.1, cell_seconds=200))["slow"]
    assert found.status == "time: not finished after 0.1 minutes, in code cell 4" and found.seconds < 20
    assert statuses(found) == ["solved"] + ["not reached"] * 4


def test_an_interrupt_ends_all_and_keeps_what_is_known(tmp_path: Path) -> None:
    save(tmp_path, "a", "")
    save(tmp_path, "b", notebook({FIRST: "import time\ntime.sleep(100)"}))
    save(tmp_path, "c", notebook())
    plans = [grading_plan.plan(path, tmp_path, KNOWN) for path in grading_plan.find_notebooks(tmp_path)]
    said: list[str] = []

    def tell(graded: Graded) -> None:
        said.append(graded.learner)
        raise KeyboardInterrupt

    begun = time.monotonic()
    found = grading.grade(plans, LIMITS, 1, tell)
    assert said == ["a"] and time.monotonic() - begun < 15
    assert [g.status.partition(",")[0] for g in found] == ["unreadable: the file is empty", "interrupted", "interrupted"]
    assert {r.status for g in found[1:] for r in g.rows} == {"not reached"}


def test_reports_that_never_came() -> None:
    made = grading_plan.Plan(Path("x"), "x", "x", KNOWN[LESSON])
    made.owners = {name: [k] for k, name in enumerate(NAMES)}
    cell = [{"event": "cell", "cell": 0}]
    assert statuses(grading.results(made, cell, "memory: more than 1 GB", 1))[:2] == ["memory", "not reached"]
    assert statuses(grading.results(made, cell, "interrupted", 1)) == ["not reached"] * 5
    assert statuses(grading.results(made, cell, "", 1))[:2] == ["error", "not reached"]
    judging = [{"event": "judging", "name": SECOND}]
    assert statuses(grading.results(made, judging, "time: not finished after 1 minutes", 1))[1] == "time"


def test_the_most_frequent() -> None:
    assert grading.most_frequent(["b", "a", "", "a", "", ""]) == "a"
    assert grading.most_frequent(["b", "a"]) == "b" and grading.most_frequent([""]) == ""


def test_a_scratch_folder_that_cannot_be_made_costs_one_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    save(tmp_path, "a", notebook())
    monkeypatch.setattr(grading.tempfile, "mkdtemp", full)
    assert "No space left" in run(tmp_path)["a"].status
    assert threading.active_count() < 20
