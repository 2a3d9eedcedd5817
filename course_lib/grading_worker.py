"""The process that runs one learner's notebook for `course grade`: it drives a Jupyter kernel and reports line by line.

The job comes as one line of JSON on standard input, which stays open as long as the grader lives: when it ends, so does
everything here. What happens goes out as lines of JSON on a copy of standard output that no child inherits; the kernel's own
standard output leads nowhere. nbclient is not used: it keeps every output in memory, and waits for a kernel that ignores
being interrupted.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

START_SECONDS = 120  # a busy machine is slow to start a kernel
PAUSE = 0.7  # seconds before the first interrupt: it would kill a kernel that is done and about to say so
AGAIN = 1.5  # seconds between two interrupts
GRACE = 4.0  # seconds in which a kernel may heed them
LONGEST = 300  # characters of a line that is reported


class Run(NamedTuple):
    """What running a cell came to. status: ok, error, time, output, or died; alive: whether there still is a kernel."""

    status: str
    line: str
    alive: bool
    reply: dict


class _Manager(KernelManager):
    """A kernel of this very Python, whatever kernels are registered on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="learner", language="python")


class Kernel:
    """A kernel in a scratch folder, its cells run one at a time."""

    def __init__(self, scratch: Path, folder: Path) -> None:
        transport = "tcp" if os.name == "nt" else "ipc"  # sockets that are files cannot be taken by somebody else
        self.manager = _Manager(connection_file=str(scratch / "k.json"), transport=transport)
        arguments = ["--log-level=CRITICAL", "--HistoryManager.hist_file=:memory:"]
        self.manager.start_kernel(cwd=str(folder), extra_arguments=arguments)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=START_SECONDS)

    def run(self, source: str, seconds: float, most: float, expression: str = "") -> Run:
        """Run a cell for at most so many seconds and bytes of output; with an expression, quietly, and its value too."""
        quiet = bool(expression)
        asked = self.client.execute(
            source, silent=quiet, store_history=not quiet, allow_stdin=False, stop_on_error=False,
            user_expressions={"value": expression} if quiet else {},
        )  # fmt: skip
        end, looked, size = time.monotonic() + seconds, time.monotonic(), 0
        reply: dict | None = None
        over, idle, interrupted_at, killed_at = "", False, 0.0, 0.0
        while not (reply and idle):
            with contextlib.suppress(queue.Empty):
                message = self.client.get_iopub_msg(timeout=0.1)
                if message["parent_header"].get("msg_id") == asked:
                    size += _size(message["content"])
                    idle = idle or message["content"].get("execution_state") == "idle"
            if reply is None and self.client.shell_channel.msg_ready():
                message = self.client.get_shell_msg(timeout=1)
                reply = message["content"] if message["parent_header"].get("msg_id") == asked else None
                end = min(end, time.monotonic() + 5) if reply else end  # for the rest of its output
            now = time.monotonic()
            if now - looked > 0.3 and reply is None:
                looked = now
                if not self.manager.is_alive():
                    return Run(over or "died", _told(over, seconds, most) or "the kernel died", False, {})
            if not over and (size > most or (now > end and not reply)):
                over = "output" if size > most else "time"
                interrupted_at, killed_at = now + PAUSE - AGAIN, now + PAUSE + GRACE
            if reply and (over or now > end):
                break
            if over and now - interrupted_at > AGAIN:
                interrupted_at = now
                self.manager.interrupt_kernel()
            if over and now > killed_at:
                self.stop()
                return Run(over, f"{_told(over, seconds, most)}; it could not be interrupted", False, {})
        if over:
            return Run(over, _told(over, seconds, most), True, reply or {})
        failed = (reply or {}).get("status") != "ok"
        return Run("error" if failed else "ok", _error(reply) if failed and reply else "", True, reply or {})

    def value(self, expression: str, seconds: float) -> tuple[Run, dict[str, Any]]:
        """The JSON object that an expression gives, of the kernel's own Python, not of a name of the learner's."""
        token = os.urandom(16).hex()
        done = self.run("", seconds, float("inf"), expression.replace("TOKEN", repr(token)))
        answer = done.reply.get("user_expressions", {}).get("value", {})
        try:
            found = json.loads(ast.literal_eval(answer["data"]["text/plain"]))
        except (KeyError, ValueError, SyntaxError, TypeError):
            return done._replace(line=done.line or _error(answer)), {}
        return done, found if isinstance(found, dict) and found.pop("token", "") == token else {}

    def stop(self) -> None:
        with contextlib.suppress(Exception):  # it is gone already
            self.client.stop_channels()
        with contextlib.suppress(Exception):
            self.manager.shutdown_kernel(now=True)


def _size(content: dict) -> int:
    """The bytes, more or less, of a message with output."""
    parts = [content.get("text", ""), *content.get("traceback", ()), *content.get("data", {}).values()]
    return sum(len(part) if isinstance(part, str) else len(str(part)) for part in parts)


def _told(over: str, seconds: float, most: float) -> str:
    told = {"time": f"not finished after {seconds:g} s", "output": f"more than {most / 1e6:g} MB of output"}
    return told.get(over, "")


def _error(reply: dict) -> str:
    return f"{reply.get('ename', 'Error')}: {reply.get('evalue', '')}"[:LONGEST]


def work(job: dict, tell: Callable[..., None]) -> None:
    """Run the cells of a job in order, and behind them the checks; ``tell`` is called with each thing that happens."""
    try:
        kernel = Kernel(Path(job["scratch"]), Path(job["folder"]))
    except Exception as error:
        tell(event="end", status="error", line=f"no kernel: {error}"[:LONGEST])
        return
    try:
        started, answer = kernel.value(_call("start", "TOKEN"), START_SECONDS)
        if not answer:
            tell(event="end", status="error", line=f"the library cannot be loaded in the kernel: {started.line}"[:LONGEST])
            return
        _cells(kernel, job, tell)
    finally:
        kernel.stop()


def _cells(kernel: Kernel, job: dict, tell: Callable[..., None]) -> None:
    after, seconds, done = {int(k): names for k, names in job["after"].items()}, job["cell_seconds"], Run("ok", "", True, {})
    for number, source in enumerate(job["cells"]):
        if source.strip():
            tell(event="cell", cell=number)
            done = kernel.run(source, seconds, job["output_bytes"])
            tell(event="ran", cell=number, status=done.status, line=done.line[:LONGEST])
        if done.alive:
            done = _judge(kernel, after.get(number, []), seconds, tell)
        if not done.alive:
            tell(event="end", status=done.status, line=f"{done.line}, in code cell {number + 1}"[:LONGEST])
            return
    done = _judge(kernel, job["names"], seconds, tell)
    ended = ("ok", "") if done.alive else (done.status, f"{done.line}, in a check"[:LONGEST])
    tell(event="end", status=ended[0], line=ended[1])


def _judge(kernel: Kernel, names: list[str], seconds: float, tell: Callable[..., None]) -> Run:
    done = Run("ok", "", True, {})
    for name in names:
        tell(event="judging", name=name)
        done, found = kernel.value(_call("judge", repr(name), "TOKEN"), seconds)
        if not found:
            status = done.status if done.status in ("time", "output") else "error"
            line = f"✗ {name}: the check ended with: {done.line or 'no answer'}"[:LONGEST]
            found = {"status": status, "line": line, "hint": "", "notes": []}
        tell(event="judged", name=name, **found)
        if not done.alive:
            break
    return done


def _call(function: str, *arguments: str) -> str:
    return f"__import__('course_lib.grading_kernel', fromlist=['x']).{function}({', '.join(arguments)})"


def _end_with_the_grader(stream: Any, scratch: str) -> None:
    """Wait until standard input ends, which it does when the grader dies; then end the kernel's processes and this one."""
    stream.read()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            process.kill()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Read the job, free standard output for the reports, and work."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_grader, args=(sys.stdin.buffer, job["scratch"]), daemon=True).start()
    with contextlib.suppress(OSError):  # Linux: if the machine's memory runs out, these processes are to go first
        Path("/proc/self/oom_score_adj").write_text("1000")

    def tell(**fields: Any) -> None:
        print(json.dumps(fields), file=channel, flush=True)

    with contextlib.suppress(BrokenPipeError):
        work(job, tell)


if __name__ == "__main__":
    main()
