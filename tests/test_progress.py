"""A terminal gets a bar, a log a line now and then, and an error always a line of its own."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from course_process import TEXT, TINY, start


def test_a_log_gets_a_line_now_and_then(tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    code = "from course_lib import cli, progress; progress.LINE_EVERY = 0.1; cli.main()"
    program = (sys.executable, "-c", code)
    process = start("train", "--data", "mine.txt", "--minutes", 0.012, *TINY, folder=tmp_path, program=program)
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    form = r"step \d+: [\d.]+ nats, [\d.]+ bits/char, [\d,]+ tokens/s, \d+% done"
    assert 2 <= sum(bool(re.fullmatch(form, line)) for line in output.splitlines()) <= 8


def test_a_terminal_gets_a_bar_and_the_error_a_line_of_its_own(tmp_path):
    (tmp_path / "mine.txt").write_text(TEXT, encoding="utf-8")
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    arguments = ["train", "--data", "mine.txt", "--minutes", 5, *TINY]
    process = start(*arguments, folder=tmp_path, stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    shown, interrupted, deadline = b"", False, time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([screen], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):  # the process has closed its end
                shown += os.read(screen, 65536)
        if not interrupted and shown.count(b"tokens/s") > 3:
            process.send_signal(signal.SIGINT)
            interrupted = True
    with contextlib.suppress(OSError):
        shown += os.read(screen, 65536)
    os.close(screen)
    process.kill()
    assert process.wait() == 2, shown[-500:]
    form = rb"\r +\d%\|.*\| 00:0\d<\d\d:\d\d, [\d.]+ nats, [\d.]+ bits/char, [\d,]+ tokens/s"
    assert re.search(form, shown), shown[-500:]
    *_, last = shown.replace(b"\r", b"\n").strip().split(b"\n")
    assert last == b"error: interrupted; all is saved: go on with `course train --out runs/mine-lstm-8 --resume`"
