"""The watch sees the processes of a notebook, also those that have left its tree, and ends them all."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from course_lib.grading_watch import MARK, Limits, Watch, own_memory, resident


def test_the_processes_are_counted_and_their_memory_is_shared_out() -> None:
    process = subprocess.Popen([sys.executable, "-c", "x = b'1' * 100_000_000; import time; time.sleep(60)"])
    try:
        watch = Watch(process.pid, "no mark")
        end = time.monotonic() + 10
        seen = psutil.Process(process.pid)
        while own_memory(seen) < 1e8 and time.monotonic() < end:
            time.sleep(0.05)
        assert watch.trouble(Limits()) == ""
        assert watch.trouble(Limits(memory=0.09)) == "memory: more than 0.09 GB"
        assert watch.trouble(Limits(minutes=1e-9)).startswith("time:")
        assert own_memory(seen) <= resident(seen) * 1.05
    finally:
        watch.kill()
        process.wait()
    assert watch.look(thoroughly=False) == []


def test_what_has_left_the_tree_is_found_by_its_mark() -> None:
    marked = os.environ | {MARK: "the mark"}
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    escaped = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=marked)
    try:
        time.sleep(0.3)  # until the new program's environment is there
        watch = Watch(worker.pid, "the mark")
        assert {p.pid for p in watch.look(thoroughly=False)} == {worker.pid}
        assert {p.pid for p in watch.look(thoroughly=True)} == {worker.pid, escaped.pid}
    finally:
        watch.kill()
        codes = [process.wait() for process in (worker, escaped)]
    assert watch.look(thoroughly=True) == [] and len(codes) == 2
