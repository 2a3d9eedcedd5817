"""A real browser for the tests in this folder (`make test-browser`): Debian's or anybody's Chromium, driven by playwright.

Every page is watched: an error in its console, an exception, a request that leaves the machine or a file that is not there
fails the test that opened it. Screenshots stay in build/browser/.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
PICTURES = BUILD / "browser"
FLAGS = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HERE = {"localhost", "127.0.0.1", ""}  # file: and data: addresses have no host


class Watch:
    """What went wrong on the pages of a test, one line each."""

    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.forgiven: tuple[str, ...] = ()  # parts of messages that a test expects

    def follow(self, page: Page) -> None:
        """Listen to a page, and to every window that it opens."""
        page.on("console", lambda message: self._note(message.type == "error", f"console: {message.text}"))
        page.on("pageerror", lambda error: self._note(True, f"exception: {error}"))
        page.on("request", lambda request: self._note(outside(request.url), f"outside request: {request.url}"))
        page.on("response", lambda answer: self._note(answer.status >= 400, f"{answer.status}: {answer.url}"))
        page.on("popup", self.follow)

    def _note(self, bad: bool, line: str) -> None:
        if bad and not any(part in line for part in self.forgiven):
            self.troubles.append(line)


def outside(url: str) -> bool:
    """Whether a request to this address leaves the machine."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https", "ws", "wss"} and (parts.hostname or "") not in HERE


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process; CHROMIUM names another than the first one on the PATH."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("no Chromium found; install it (Debian: apt install chromium) or name it: CHROMIUM=/path make test-browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=[f"--{flag}" for flag in FLAGS.split()])
        yield chromium
        chromium.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What the pages of this test did wrong; anything fails it at its end."""
    watch = Watch()
    yield watch
    assert not watch.troubles, "\n".join(dict.fromkeys(watch.troubles))


@pytest.fixture
def page(browser: Browser, watch: Watch) -> Iterator[Page]:
    """A new watched page of 1280 x 720; ``page.set_viewport_size`` makes it a phone."""
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    watch.follow(page)
    yield page
    context.close()


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Page, str], Path]:
    """``keep(page, name)`` saves a screenshot as build/browser/TEST-NAME.png."""

    def keep(page: Page, name: str) -> Path:
        path = PICTURES / f"{request.node.path.stem.removeprefix('test_')}-{name}.png"
        page.screenshot(path=path)
        return path

    PICTURES.mkdir(parents=True, exist_ok=True)
    return keep


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; gives the address, without a slash at its end."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address of the built site, served."""
    if not (BUILD / "site" / "index.html").exists():
        pytest.fail("build/site is not there: run `make site`, or `make test-browser`, which runs it")
    with served(BUILD / "site") as address:
        yield address


@pytest.fixture(scope="session")
def decks() -> list[Path]:
    """The built decks of slides, all lessons'."""
    found = sorted((BUILD / "slides").glob("[0-9][0-9]_*.html"))
    if not found:
        pytest.fail("build/slides is empty: run `make slides`, or `make test-browser`, which runs it")
    return found
