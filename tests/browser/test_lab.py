"""JupyterLab as a learner meets it: it opens on lesson 00, lessons run to their end, typing solves an exercise, sliders move.

The lessons run from copies in build/lab, so nobody's work is touched; JupyterLab's own settings are fresh ones.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).parents[2]
COPIES = ROOT / "build" / "lab"
INSTRUCTOR = ROOT / "notebooks" / "instructor"
EDITIONS = [
    (folder, path.stem) for folder in ("", "zh", "instructor") for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb"))
]
TOKEN = "browsertest"
OPENING = 90_000  # milliseconds that opening a lesson may take on a busy machine
SHOWN = ".jp-NotebookPanel:not(.lm-mod-hidden) "
RUNNING = 5 * 60_000  # that a lesson may run


class Lab(NamedTuple):
    """A running JupyterLab: its address, and when `make lab` was started."""

    address: str
    started: float

    def lesson(self, name: str, folder: str = "") -> str:
        """The address of a lesson's copy in a window of its own, nothing else restored."""
        path = f"build/lab/{folder}/{name}.ipynb".replace("//", "/")
        return f"{self.address}/lab/workspaces/{folder}{name}/tree/{path}?token={TOKEN}&reset"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """`make lab`, with copies of the lessons in build/lab, as after a first installation."""
    shutil.rmtree(COPIES, ignore_errors=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fresh = tmp_path_factory.mktemp("jupyter")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment |= {key: str(fresh / place) for key, place in places.items()} | {"COURSE_PROGRESS": str(fresh / "solved.jsonl")}
    arguments = f"--port {port} --ServerApp.port_retries=0 --IdentityProvider.token={TOKEN} --no-browser"
    log = (fresh / "log").open("w+")
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "lab", "WORK=build/lab", f"LAB_ARGS={arguments}"],
        cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
            if process.poll() is not None:
                pytest.fail(f"make lab ended: {Path(log.name).read_text()}")
    yield Lab(address, started)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)
    log.close()


def idle(page: Page) -> None:
    """Wait until the kernel of the lesson in front has nothing to do."""
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=RUNNING)


def opened(page: Page, address: str) -> None:
    """Open a lesson and wait until its kernel is there."""
    page.goto(address)
    page.wait_for_selector(f"{SHOWN}.jp-Cell", timeout=OPENING)
    idle(page)


def run_all(page: Page) -> None:
    """Run > Run All Cells, and wait for the end: the last cell's number comes, then the kernel is idle."""
    page.wait_for_timeout(2500)  # JupyterLab goes on setting itself up after it says idle
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Run All Cells").first.click()
    quiet = 0
    while quiet < 4:  # between two cells a kernel may be idle for a moment
        page.wait_for_timeout(1000)
        quiet = quiet + 1 if "| Idle" in page.locator("#jp-main-statusbar").inner_text() else 0


def saved(page: Page, name: str) -> nbformat.NotebookNode:
    """Save the lesson in front and read its file."""
    path = COPIES / f"{name}.ipynb"
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(100):
        page.wait_for_timeout(100)
        if path.stat().st_mtime_ns != before:
            return nbformat.read(path, as_version=4)
    pytest.fail(f"{name} was not saved")


def cell_with(page: Page, text: str) -> Locator:
    """The first code cell whose code contains a text, scrolled to; cells far from the screen are not in the page."""
    found = page.locator(f"{SHOWN}.jp-CodeCell", has=page.locator(".cm-content", has_text=text)).first
    page.locator(f"{SHOWN}.jp-Notebook .jp-Cell").first.hover()
    for _ in range(200):
        if found.count():
            found.scroll_into_view_if_needed()
            return found
        page.mouse.wheel(0, 600)
        page.wait_for_timeout(60)
    pytest.fail(f"no cell with {text!r}")


def code_cells(notebook: nbformat.NotebookNode, tag: str = "") -> list[nbformat.NotebookNode]:
    """The code cells, or those with a tag."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and tag in {*cell.metadata.get("tags", []), ""}]


def test_make_lab_opens_on_lesson_00_and_nothing_pops_up(lab, page, keep):
    page.goto(f"{lab.address}/?token={TOKEN}")  # the address that JupyterLab prints and opens
    page.wait_for_selector(f"{SHOWN}.jp-Cell", timeout=OPENING)
    shown = time.monotonic() - lab.started
    idle(page)
    ready = time.monotonic() - lab.started
    expect(page.locator(f"{SHOWN}h1").first).to_contain_text("00 · Start here")
    page.wait_for_timeout(3000)
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0
    beside = keep(page, "opens").with_name("lab-opens.txt")
    beside.write_text(f"make lab: lesson 00 shown after {shown:.1f} s, kernel ready after {ready:.1f} s\n", encoding="utf-8")


@pytest.mark.parametrize(("folder", "name"), EDITIONS, ids=[f"{folder or 'learner'}-{name[:2]}" for folder, name in EDITIONS])
def test_every_notebook_opens_with_its_figures_and_formulas(lab, page, folder, name):
    if folder == "instructor":  # which `make lab` lays nowhere
        (COPIES / folder).mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / folder / f"{name}.ipynb", COPIES / folder)
    opened(page, lab.lesson(name, folder))
    title = nbformat.read(ROOT / "notebooks" / folder / f"{name}.ipynb", 4).cells[0].source.partition("\n")[0]
    expect(page.locator(f"{SHOWN}h1").first).to_contain_text(title.removeprefix("# "))
    page.locator(f"{SHOWN}.jp-Notebook .jp-Cell").first.hover()
    for _ in range(60):  # to its end: cells far from the screen are drawn when they come near
        page.mouse.wheel(0, 1500)
        page.wait_for_timeout(30)
    assert page.locator(f"{SHOWN}mjx-merror").count() == 0


@pytest.mark.parametrize("name", ["00_start_here", "02_rnn", "05_lstm_backward", "11_text_generation"])
def test_a_lesson_runs_from_top_to_bottom(lab, page, keep, name):
    opened(page, lab.lesson(name))
    run_all(page)
    notebook = saved(page, name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert [output for cell in cells for output in cell.outputs if output.output_type == "error"] == []
    outputs = [cell.outputs for cell in code_cells(notebook, "check")]
    printed = ["".join(output.get("text", "") for output in part) for part in outputs]
    assert printed
    assert all("not written yet" in text for text in printed)
    keep(page, name)


def test_typing_the_solution_turns_the_check(lab, page, keep):
    name = "02_rnn"
    solution = code_cells(nbformat.read(INSTRUCTOR / f"{name}.ipynb", 4), "solution")[0].source
    original = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    stub, check = (code_cells(original, tag)[0].source for tag in ("exercise", "check"))
    opened(page, lab.lesson(name))
    run_all(page)
    judged = cell_with(page, check.strip().splitlines()[-1])
    expect(judged.locator(".jp-OutputArea")).to_contain_text("○")
    header = stub.strip().splitlines()[0]
    editor = cell_with(page, header).locator(".cm-content")
    editor.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(solution)
    page.keyboard.press("Shift+Enter")
    idle(page)
    judged = cell_with(page, check.strip().splitlines()[-1])
    judged.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(judged.locator(".jp-OutputArea")).to_contain_text("✓", timeout=60_000)
    keep(page, "solved")


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("03_vanishing_gradients", "GradientExplorer("),
        ("04_lstm_forward", "GateExplorer("),
        ("11_text_generation", "SamplingExplorer("),
    ],
)
def test_every_slider_of_a_widget_changes_its_figure(lab, page, keep, name, cell):
    opened(page, lab.lesson(name))
    run_all(page)
    shown = cell_with(page, cell)
    picture = shown.locator(".jp-OutputArea img")
    picture.scroll_into_view_if_needed()
    sliders = shown.get_by_role("slider")
    assert sliders.count() >= 3
    for number in range(sliders.count()):
        before = picture.get_attribute("src")
        sliders.nth(number).focus()
        for key in ("Home", "End"):  # by the keyboard, as somebody without a mouse does; one of them is another place
            page.keyboard.press(key)
            page.wait_for_timeout(2500)
        assert picture.get_attribute("src") != before, f"slider {number} changes nothing"
    keep(page, f"widget-{name[:2]}")


def test_what_was_typed_survives_the_next_make_lab(lab):
    """The copies that the tests above edited are still as they were saved after `make lab` ran again."""
    mine = (COPIES / "02_rnn.ipynb").read_bytes()
    dry = subprocess.run(["make", "-s", "-n", "lab", "WORK=build/lab"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    update = next(line for line in dry.stdout.splitlines() if "course lessons" in line)
    subprocess.run(update.split(), cwd=ROOT, check=True, timeout=60)
    assert (COPIES / "02_rnn.ipynb").read_bytes() == mine
    assert json.loads(mine)["cells"]
