"""`course doctor` finds what is broken, says what to do, and never breaks itself."""

import shutil
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from course_process import course

from course_lib import checkpoint, doctor, downloads
from course_lib.errors import CourseError
from course_lib.language_model import init
from course_lib.text import CharTokenizer


def torch(cuda: str | None = None, available: bool = False) -> SimpleNamespace:
    """A torch that is imported at once."""
    gpu = SimpleNamespace(is_available=lambda: available, get_device_name=lambda: "H200")
    version = SimpleNamespace(cuda=cuda)
    return SimpleNamespace(__version__="2.13.0", version=version, cuda=gpu, get_num_threads=lambda: 2)


@pytest.fixture
def healthy(monkeypatch, tmp_path) -> Path:
    """A machine on which all is well; the folder of its shipped models, its data (data) and its cache (cache)."""
    shelf, data = tmp_path / "shelf", tmp_path / "data"
    shelf.mkdir()
    data.mkdir()
    config = {"vocab_size": 4, "embedding_size": 2, "hidden_size": 2, "num_layers": 1, "cell": "rnn"}
    checkpoint.save(shelf / "poet.safetensors", init(**config, seed=1), CharTokenizer("abc"), config, {})
    monkeypatch.setattr(checkpoint, "SHIPPED", shelf)
    monkeypatch.setenv("COURSE_DATA", str(data))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "torch", torch())
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(9e9, 4e9, 5e9))
    return shelf


def report() -> dict[str, list[str]]:
    """The texts of the findings by level; each is one line."""
    found = {"good": [], "note": [], "broken": []}
    for finding in doctor.examine():
        assert "\n" not in str(finding)
        assert str(finding) == f"{doctor.SIGNS[finding.level]} {finding.text}"
        found[finding.level].append(finding.text)
    return found


def broken() -> str:
    """The one thing that is broken."""
    found = report()["broken"]
    assert len(found) == 1, found
    return found[0]


def test_a_healthy_machine(healthy, tmp_path):
    found = report()
    assert found["broken"] == []
    text = "\n".join(found["good"] + found["note"])
    for part in ("Python 3.", "packages", "torch 2.13.0, CPU build, 2 threads", "shipped models: poet", "5.0 GB free"):
        assert part in text
    assert f"COURSE_DATA: {tmp_path / 'data'}" in text
    assert f"downloads go to {tmp_path / 'cache'}" in text
    assert "data sets ready: python_docs, python_source, summaries, bodies, dates; fetched when first used: " in text
    assert "no GPU: nothing in the course needs one" in text or "an NVIDIA driver, but torch cannot use it" in text
    assert not (tmp_path / "cache").exists(), "looking changes nothing"


def test_a_gpu(healthy, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch("12.8", True))
    assert {"torch 2.13.0, CUDA 12.8 build, 2 threads", "GPU: H200"} <= set(report()["good"])
    monkeypatch.setitem(sys.modules, "torch", torch("12.8", False))
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert any("torch cannot use it" in text for text in report()["note"])


def test_an_old_python(healthy, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert "the course needs 3.11 or newer; make setup PYTHON=" in broken()


def test_a_missing_package(healthy, monkeypatch):
    right = metadata.version

    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return right(name)

    monkeypatch.setattr(metadata, "version", version)
    assert broken() == "missing packages: safetensors; run make setup"


def test_another_version_is_only_noted(healthy, monkeypatch):
    right = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.1" if name == "tqdm" else right(name))
    found = report()
    assert found["broken"] == []
    assert any("tqdm 0.0.1 (tested: 4." in text and "make setup" in text for text in found["note"])


def test_a_build_of_torch_is_no_other_version(healthy, monkeypatch):
    pins = Path(doctor.ROOT, "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in pins if "==" in line and not line.startswith("#"))
    versions = {name.lower().replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(metadata, "version", lambda name: versions[name] + ("+cpu" if name == "torch" else ""))
    assert any(text.endswith("packages in the tested versions") for text in report()["good"])


def test_a_copy_that_was_never_installed(healthy, monkeypatch):
    def requires(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert broken().endswith("run make setup")


def test_a_torch_that_does_not_import(healthy, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert broken().startswith("torch does not import (")
    assert "lessons 00-06 work without it" in broken()


def test_a_data_folder_that_is_none(healthy, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", "/nowhere")
    assert broken() == "COURSE_DATA names '/nowhere', which is no folder; correct it or unset it"


def test_damaged_data(healthy, tmp_path):
    (file,) = downloads.lookup("names").files
    path = tmp_path / "data" / file.file
    path.parent.mkdir(parents=True)
    path.write_text("Ada\n", encoding="utf-8")
    assert broken().startswith("data set names: damaged in COURSE_DATA; replace the file")
    assert not any("ready" in text and " names" in text for text in report()["good"])


def test_a_cache_that_cannot_be_written(healthy, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    assert broken() == f"cannot write to {tmp_path / 'file'}, where downloads go; name another folder in COURSE_CACHE"


def test_an_unreadable_model(healthy):
    shutil.copy(healthy / "poet.safetensors", healthy / "cut.safetensors")
    content = (healthy / "cut.safetensors").read_bytes()
    (healthy / "cut.safetensors").write_bytes(content[:-1])
    assert broken().startswith("shipped model cut: ")
    assert "is not a whole checkpoint" in broken()
    assert "shipped models: poet" in report()["good"]


def test_no_models(healthy):
    (healthy / "poet.safetensors").unlink()
    assert broken() == f"no shipped models in {healthy}; clone the course again"


def test_a_full_disk(healthy, monkeypatch):
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(1e9, 1e9, 2e7))
    assert broken().startswith("0.02 GB free on the disk of ")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(1e9, 1e9, 5e8))
    assert "0.5 GB free on the disk" in report()["note"]


@pytest.mark.parametrize("error", [CourseError("damaged"), PermissionError(13, "Permission denied"), RuntimeError("a\nb")])
def test_whatever_happens_the_other_checks_go_on(healthy, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(downloads, "registry", fail)
    monkeypatch.setattr(downloads, "status", fail)
    assert str(error).split()[-1] in broken()
    assert "5.0 GB free on the disk" in report()["good"]


def test_the_command(tmp_path):
    """This machine, with its own torch: whatever is broken is told, and the exit status says whether anything is."""
    result = course("doctor", folder=tmp_path)
    assert result.stderr == ""
    *findings, verdict = result.stdout.splitlines()
    wrong = [line for line in findings if line.startswith("✗")]
    assert all(line[0] in "✓○✗" for line in findings)
    if checkpoint.shipped():
        assert (wrong, verdict, result.returncode) == ([], "All is well.", 0)
    else:
        assert [line for line in wrong if "no shipped models" not in line] == []
        assert (verdict, result.returncode) == ("1 broken: do what the lines with ✗ say", 1)
