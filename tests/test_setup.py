"""The two commands: requirements agree everywhere, the Makefile does what its help says, CI runs what a user runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["keras"]
TARGETS = ["help", "setup", "lab", "test", "lessons", "site", "slides", "lint", "bench", "mutants", "test-browser", "test-gpu"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run make, free of what an outer make left in the environment."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DISPLAY", "BROWSER"}}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=inherited | environment, capture_output=True, text=True, timeout=60)


def pins() -> dict[str, Version]:
    """Return the version of each package in constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines)
    assert len(found) == len(lines), "a package is pinned twice"
    return {re.sub(r"[-_.]+", "-", name).lower(): Version(version) for name, version in found.items()}


def test_conda_installs_the_requirements_of_pip():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    *conda, last = dependencies
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert last["pip"] == ["-c constraints.txt", "-e .", *REQUIREMENTS]


@pytest.mark.parametrize("requirement", [Requirement(text) for text in REQUIREMENTS], ids=lambda r: r.name)
def test_every_requirement_has_a_lower_bound_and_a_pin_above_it(requirement):
    assert [clause.operator for clause in requirement.specifier] == [">="]
    assert pins()[requirement.name] in requirement.specifier


def test_torch_is_pinned_without_its_build():
    assert str(pins()["torch"]) == "2.13.0"
    assert pins()["torch"].local is None


@needs_make
def test_help_is_the_default_and_lists_every_target():
    result = make()
    assert result.returncode == 0
    assert re.findall(r"^make (\S+) +\S", result.stdout, flags=re.MULTILINE) == TARGETS


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target):
    assert make("-n", target).returncode == 0


@needs_make
def test_lab_opens_the_first_lesson_with_a_token_and_passes_options():
    command = make("-n", "lab", "LAB_ARGS=--port 9999").stdout.splitlines()[-1]
    assert "jupyterlab --LabApp.default_url=/lab/tree/work/00_start_here.ipynb" in command
    assert command.endswith(" --port 9999")
    assert "token" not in command
    assert "password" not in command
    assert ("--allow-root" in command) == (os.getuid() == 0)
    assert "announcements" in make("-n", "setup").stdout, "the pop-up about news stays off"


@needs_make
def test_lab_opens_a_browser_only_where_there_is_one():
    if os.uname().sysname != "Darwin":
        assert "--no-browser" in make("-n", "lab").stdout
    assert "--no-browser" not in make("-n", "lab", DISPLAY=":0").stdout


@needs_make
def test_the_data_beside_the_checkout_are_used_unless_others_are_named(tmp_path):
    checkout, data = tmp_path / "a checkout", tmp_path / "shared" / "data"
    checkout.mkdir()
    text = (ROOT / "Makefile").read_text(encoding="utf-8") + '\nshow:\n\t@echo "[$$COURSE_DATA]"\n'
    (checkout / "Makefile").write_text(text, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key not in {"COURSE_DATA", "MAKEFLAGS", "MAKELEVEL"}}

    def show(**more: str) -> str:
        command = ["make", "--no-print-directory", "show"]
        run = subprocess.run(command, cwd=checkout, env=environment | more, capture_output=True, text=True, timeout=60)
        return run.stdout.strip()

    assert show() == "[]"
    data.mkdir(parents=True)
    (data / "registry.json").write_text("{}", encoding="utf-8")
    found = Path(show().strip("[]"))
    assert found.is_absolute()
    assert found.samefile(data)
    assert show(COURSE_DATA="/elsewhere") == "[/elsewhere]"


@needs_make
@pytest.mark.parametrize("version", ["3.9.2", None])
def test_an_old_or_missing_python_is_one_line(tmp_path, version):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    if version:
        python.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo Python {version} && exit 0\nexit 1\n', encoding="utf-8")
        python.chmod(0o755)
    result = make("setup", f"PYTHON={python}", folder=tmp_path)
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(errors) == 1
    assert errors[0].startswith("error: Python 3.11 or newer not found")
    assert (version or "") in errors[0]
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_make_test_and_nothing_else():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]
