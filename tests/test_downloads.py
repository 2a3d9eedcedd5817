"""Downloads against a real server on this machine: what is wrong is never used, and never left behind."""

import hashlib
import http.server
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from course_lib import downloads
from course_lib.errors import CourseError

GOOD = ("To be, or not to be, that is the question:\n" * 5000).encode()
GOOD_SHA = hashlib.sha256(GOOD).hexdigest()
NAME = "play"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path: /good, /altered, /truncated (fewer bytes than announced), /short (a shorter file), else 404."""

    def do_GET(self):
        self.server.requests.append(self.path)
        body = {"/good": GOOD, "/altered": GOOD[:-2] + b"!\n", "/truncated": GOOD, "/short": GOOD[:1000]}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if self.path == "/truncated" else body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests = []
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def place(server, tmp_path, monkeypatch):
    """Registers one file at the given path of the server; returns a function that does, and the cache folder."""
    server.requests.clear()
    cache = tmp_path / "cache"
    monkeypatch.setenv("COURSE_CACHE", str(cache))
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "REGISTRY_FILE", tmp_path / "registry.json")

    def register(path, port=server.server_port, **more):
        url = f"http://127.0.0.1:{port}{path}"
        file = {"file": "plays/play.txt", "bytes": len(GOOD), "sha256": GOOD_SHA, "url": url}
        entry = {"kind": "text", "description": "d", "licence": "l", "note": "", "files": [file], **more}
        (tmp_path / "registry.json").write_text(json.dumps({NAME: entry}), encoding="utf-8")
        return url

    register.cache = cache
    return register


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_download_once_with_a_progress_bar(place, server, capfd):
    place("/good")
    assert downloads.status(NAME) == "not downloaded"
    path = downloads.fetch(NAME)
    assert path == place.cache / "plays" / "play.txt"
    assert path.read_bytes() == GOOD
    out, err = capfd.readouterr()
    assert out == ""
    assert "100%" in err
    assert downloads.fetch(NAME) == path
    assert downloads.status(NAME) == "cached"
    assert server.requests == ["/good"]
    assert files_in(place.cache) == ["plays/play.txt"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/altered", "what arrived has another checksum"),
        ("/short", "what arrived has another checksum"),
        ("/truncated", "no connection, or it broke off"),
        ("/nothing", "the server answered 404"),
    ],
)
def test_failed_downloads_leave_nothing(place, path, reason):
    url = place(path)
    with pytest.raises(CourseError) as caught:
        downloads.fetch(NAME)
    message = str(caught.value)
    for part in ("play.txt", url, reason, str(place.cache / "plays" / "play.txt"), GOOD_SHA):
        assert part in message
    assert "\n" not in message
    assert files_in(place.cache) == []


def test_connection_refused(place, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place("/good", port)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(CourseError, match="no connection") as caught:
        downloads.fetch(NAME)
    assert str(tmp_path / "plays" / "play.txt") in str(caught.value)  # put it where the user keeps the data
    assert files_in(place.cache) == []


def test_an_interrupted_download_leaves_nothing(place, monkeypatch):
    import pooch

    def interrupted(self, url, output_file, pooch, check_only=False):
        Path(output_file).write_bytes(GOOD[:100])
        raise KeyboardInterrupt

    place("/good")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        downloads.fetch(NAME)
    assert files_in(place.cache) == []


@pytest.mark.parametrize("damage", [GOOD[:-1], GOOD[:-2] + b"?\n", b""])
def test_a_damaged_cache_is_replaced_or_removed(place, damage):
    place("/good")
    path = downloads.fetch(NAME)
    path.write_bytes(damage)
    assert downloads.status(NAME) == "not downloaded"
    assert downloads.fetch(NAME).read_bytes() == GOOD
    path.write_bytes(damage)
    place("/nothing")
    with pytest.raises(CourseError, match="404"):
        downloads.fetch(NAME)
    assert files_in(place.cache) == []


def test_course_data_comes_first_and_is_verified_each_time(place, server, tmp_path, monkeypatch):
    place("/good")
    mine = tmp_path / "mine" / "plays" / "play.txt"
    mine.parent.mkdir(parents=True)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "mine"))
    mine.write_bytes(GOOD)
    assert downloads.fetch(NAME) == mine
    assert downloads.status(NAME) == "in COURSE_DATA"
    mine.write_bytes(GOOD[:-1])
    assert downloads.status(NAME) == "damaged in COURSE_DATA"
    with pytest.raises(CourseError, match=f"altered or incomplete.*{GOOD_SHA}") as caught:
        downloads.fetch(NAME)
    assert "\n" not in str(caught.value)
    assert mine.read_bytes() == GOOD[:-1]  # the user's own file is refused, not deleted
    assert server.requests == []
    mine.unlink()
    assert downloads.fetch(NAME) == place.cache / "plays" / "play.txt"


def test_folders_that_cannot_be(place, tmp_path, monkeypatch):
    place("/good")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CourseError, match=r"COURSE_DATA names .*nowhere.*no folder"):
        downloads.fetch(NAME)
    monkeypatch.delenv("COURSE_DATA")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(CourseError, match="cannot write") as caught:
        downloads.fetch(NAME)
    assert "\n" not in str(caught.value)
    monkeypatch.delenv("COURSE_CACHE")
    assert downloads.cache_folder().name == "course_lib"


def test_several_files(place):
    url = place("/good")
    files = [{"file": f"plays/{i}.txt", "bytes": len(GOOD), "sha256": GOOD_SHA, "url": url} for i in (2, 1)]
    place("/good", files=files)
    assert [path.name for path in downloads.fetch_all(NAME)] == ["2.txt", "1.txt"]
    assert downloads.status(NAME) == "cached"
    (place.cache / "plays" / "1.txt").unlink()
    assert downloads.status(NAME) == "not downloaded"
    with pytest.raises(ValueError, match="use fetch_all"):
        downloads.fetch(NAME)


def test_names():
    for name, message in (
        ("python_source", r"comes with Python: it has no file; use load_corpus\('python_source'\)"),
        ("summaries", "comes with Python: it has no file; use `course train --task translate --data summaries`"),
        ("dates", "comes with Babel: it has no file; use `course train --task translate --data dates`"),
    ):
        assert downloads.status(name) == "embedded"
        with pytest.raises(CourseError, match=f"^{name} {message}$"):
            downloads.fetch(name)
    with pytest.raises(
        CourseError, match=r"did you mean tiny_shakespeare\? registered: bodies, dates, multi30k, names, python_docs, "
    ):
        downloads.lookup("tiny_shakespear")
    with pytest.raises(CourseError, match="'qqq'; registered"):
        downloads.fetch("qqq")


def test_the_registry_is_complete():
    entries = downloads.registry()
    assert {"tiny_shakespeare", "names", "time_machine", "python_docs", "python_source"} <= set(entries)
    pairs = {name for name, entry in entries.items() if entry.kind == "pairs"}
    assert pairs == {"multi30k", "tatoeba_fra", "tatoeba_cmn", "dates", "summaries", "bodies"}
    assert entries["dates"].licence.startswith("Unicode-3.0")
    assert entries["summaries"].licence == "PSF-2.0"
    assert "non-commercial" in entries["multi30k"].licence
    assert all("CC BY 2.0" in entries[name].licence for name in ("tatoeba_fra", "tatoeba_cmn"))
    assert "www.manythings.org/anki and tatoeba.org" in entries["tatoeba_fra"].licence  # the attribution it asks for
    for entry in entries.values():
        assert entry.kind in {"text", "lines", "poems", "pairs", "embedded"}
        assert entry.description
        assert entry.licence
        assert bool(entry.files) != (entry.package in {"Python", "Babel"})
        for remote in entry.files:
            assert len(remote.sha256) == 64
            assert remote.size > 0
            assert remote.url.startswith("https://")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), ("{", "damaged"), ('{"a": {}}', "damaged")])
def test_a_missing_or_damaged_registry(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(downloads, "REGISTRY_FILE", tmp_path / "registry.json")
    if content is not None:
        (tmp_path / "registry.json").write_text(content)
    with pytest.raises(CourseError, match=message):
        downloads.registry()


def test_the_files_on_this_machine_are_the_registered_ones(monkeypatch):
    folder = os.environ.get("COURSE_DATA") or Path(__file__).parents[2] / "shared" / "data"
    if not Path(folder).is_dir():
        pytest.skip("no folder of data here: set COURSE_DATA")
    monkeypatch.setenv("COURSE_DATA", str(folder))
    found = [entry for entry in downloads.registry().values() if downloads.status(entry.name) == "in COURSE_DATA"]
    assert found
    for entry in found:
        sizes = [path.stat().st_size for path in downloads.fetch_all(entry.name)]
        assert sizes == [remote.size for remote in entry.files]
