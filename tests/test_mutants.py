"""Every planted bug of ``library_mutants`` breaks a law of ``test_laws``; ``python tests/test_mutants.py`` prints the list.

A bug is planted in a fork of a Python that has not imported the library yet: an import hook hands out the edited source. The
fork runs the laws about that module on their fixed cases, as ``test_laws`` does, and tells which one broke. A bug that breaks
none survives; one that is not Python, or uses a name that does not exist, is broken itself. Neither counts as noticed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from types import CodeType

import pytest
from library_mutants import FOLDER, MUTANTS, Mutant, mutated

CPU_SECONDS = 20  # for the laws against one bug; they take less than 2
SURVIVED, BROKEN, ENDLESS = "survived", "broken", "endless"
TORCH = ("torch_", "attention", "seq2seq", "translation")  # how the names of modules begin that need it
NOT_A_WRONG_RESULT = (SyntaxError, ImportError, NameError, AttributeError, TypeError, MemoryError, RecursionError)


class Planted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of ``course_lib`` from another source."""

    def __init__(self, module: str, source: str) -> None:
        self.name, self.source = f"course_lib.{module}", source

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module):
        exec(compile(self.source, f"<mutant of {self.name}>", "exec"), module.__dict__)


def killer(module: str, source: str) -> str:
    """In a fork: plant the source, and say which law it breaks; or SURVIVED, or BROKEN with the reason."""
    planted = Planted(module, source)
    sys.meta_path.insert(0, planted)
    try:
        from test_laws import LAWS, fixed_cases

        importlib.import_module(planted.name)  # no law has imported those of torch yet
        if sys.modules[planted.name].__loader__ is not planted:
            return f"{BROKEN}: {planted.name} is not the mutant"
    except Exception as error:
        return f"{BROKEN} on import: {error!r}"
    for name, law in LAWS.items():
        if module in law.modules:
            for case in fixed_cases(name):
                try:
                    law.holds(case)
                except NOT_A_WRONG_RESULT as error:
                    return f"{BROKEN}: {error!r}"
                except (Exception, pytest.fail.Exception):
                    return name
    return SURVIVED


def in_a_fork(function: Callable[..., str], *args: str, seconds: int = CPU_SECONDS) -> str:
    """What the function returns in a fork of this process, or ENDLESS."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # at its end SIGPROF ends the fork
        try:
            os.write(write, function(*args).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:  # noqa: PTH123 (a descriptor, not a path)
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ENDLESS if os.WTERMSIG(status) == signal.SIGPROF else f"{BROKEN}: signal {os.WTERMSIG(status)}"
    return answer or f"{BROKEN}: no answer"


def serve() -> None:
    """Read {name: (module, source)} as JSON, print {name: killer}: in a Python of one thread, without the library."""
    import hypothesis  # noqa: F401 (once for all forks)
    import numpy  # noqa: F401

    warnings.simplefilter("error")
    seconds, planted = json.load(sys.stdin)
    if any(module.startswith(TORCH) for module, _ in planted.values()):
        import torch.fx.experimental.symbolic_shapes  # noqa: F401 (torch, and what its first backward() imports)
    print(json.dumps({name: in_a_fork(killer, *args, seconds=seconds) for name, args in planted.items()}))


def verdicts(planted: dict[str, tuple[str, str]], seconds: int = CPU_SECONDS) -> dict[str, str]:
    """What ``killer`` says of each {name: (module, source)}."""
    result = subprocess.run(
        [sys.executable, __file__, "--serve"],
        input=json.dumps([seconds, planted]),
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # a process of several threads must not fork
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def killers_of(mutants: Iterable[Mutant]) -> dict[str, str]:
    return verdicts({mutant.name: (mutant.module, mutated(mutant)) for mutant in mutants})


def source_of(module: str) -> str:
    return (FOLDER / f"{module}.py").read_text(encoding="utf-8")


MODULES = sorted({mutant.module for mutant in MUTANTS})
without_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="plants bugs in forks of Python; this system has none")


@pytest.fixture(scope="class")
def killers(request):
    """The verdict on every mutant of the modules that a class is about."""
    return killers_of(mutant for mutant in MUTANTS if mutant.module in request.cls.modules)


def each_mutant_of(*modules: str):
    return pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.module in modules], ids=lambda m: m.name)


def breaks_a_law(mutant: Mutant, killers: dict[str, str]) -> None:
    from test_laws import LAWS  # here, since --serve must not import the library before it forks

    assert killers[mutant.name] in LAWS


@without_fork
class TestCells:
    modules = ("cells", "caches", "jacobians")

    @each_mutant_of(*modules)
    def test_it_breaks_a_law(self, mutant, killers):
        breaks_a_law(mutant, killers)


@without_fork
class TestSequence:
    modules = ("sequence",)

    @each_mutant_of(*modules)
    def test_it_breaks_a_law(self, mutant, killers):
        breaks_a_law(mutant, killers)


@without_fork
class TestOthers:
    modules = ("unroll", "variants", "stacked", "layers", "weights", "attention_by_hand")

    @each_mutant_of(*modules)
    def test_it_breaks_a_law(self, mutant, killers):
        breaks_a_law(mutant, killers)


@without_fork
class TestTorch:
    modules = ("torch_sequence", "torch_stack", "torch_lstm")

    @each_mutant_of(*modules)
    def test_it_breaks_a_law(self, mutant, killers):
        breaks_a_law(mutant, killers)


@without_fork
class TestTranslation:
    modules = ("attention", "seq2seq", "torch_tokens", "translation")

    @each_mutant_of(*modules)
    def test_it_breaks_a_law(self, mutant, killers):
        breaks_a_law(mutant, killers)


def test_every_mutant_is_in_a_class():
    groups = (TestCells, TestSequence, TestOthers, TestTorch, TestTranslation)
    listed = [module for group in groups for module in group.modules]
    assert sorted(listed) == MODULES


def test_every_mutant_changes_code_and_has_a_name_of_its_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 90
    plain = {module: code(source_of(module)) for module in MODULES}
    sources = [mutated(mutant) for mutant in MUTANTS]
    assert [m.name for m, source in zip(MUTANTS, sources, strict=True) if code(source) == plain[m.module]] == []
    assert len(set(sources)) == len(MUTANTS)


def code(source: str) -> CodeType:
    """What Python runs: without comments and docstrings."""
    return compile(source, "module", "exec", optimize=2)


def test_a_place_must_hold_the_text_once():
    for old in ("prev", "no such text"):
        with pytest.raises(ValueError, match=r"^cells.rnn_step_forward: bug: expected '.+' once, found it \d+ times$"):
            mutated(Mutant("cells", "rnn_step_forward", "bug", old, "x"))


HARNESS = {
    "no bug": ("", "survived"),
    "not Python": ("def", "broken on import: SyntaxError"),
    "no such module": ("import no_such_module", "broken on import: ModuleNotFoundError"),
    "no such name": ("no_such_name", "broken on import: NameError"),
    "raises when imported": ("raise ValueError", "broken on import: ValueError"),
    "a name is gone": ("del log_softmax, sigmoid", "broken on import: ImportError"),
    "a name is wrong when called": ("def sigmoid(a): return no_such_name", "broken: NameError"),
    "raises when called": ("def sigmoid(a): raise ValueError", "step_follows_its_equations"),
    "NaN": ("def sigmoid(a): return np.nan * a", "step_follows_its_equations"),
    "a warning": ("def sigmoid(a): return a / (0 * a)", "step_follows_its_equations"),
    "a wrong number": ("def sigmoid(a): return a", "step_follows_its_equations"),
    "without end": ("while True: pass", "endless"),
    "ends Python": ("import os; os.kill(os.getpid(), 9)", "broken: signal 9"),
    "leaves Python": ("import os; os._exit(0)", "broken: no answer"),
}


@without_fork
def test_the_harness_sees_only_broken_laws_as_kills():
    layers = source_of("layers")
    found = verdicts({name: ("layers", f"{layers}\n{more}\n") for name, (more, _) in HARNESS.items()}, seconds=2)
    assert list(found) == list(HARNESS)
    for name, (_, expected) in HARNESS.items():
        assert found[name].startswith(expected), f"{name}: {found[name]}"


@without_fork
def test_without_a_bug_every_law_holds():
    assert verdicts({module: (module, source_of(module)) for module in MODULES}) == dict.fromkeys(MODULES, SURVIVED)


def print_the_list(modules: list[str]) -> None:
    """Each mutant and the law that it breaks."""
    chosen = [mutant for mutant in MUTANTS if mutant.module in (modules or MODULES)]
    found = killers_of(chosen)
    for mutant in chosen:
        print(f"{mutant.name:85} {found[mutant.name]}")
    kills = sum(" " not in verdict and verdict != SURVIVED for verdict in found.values())
    print(f"{len(chosen)} planted bugs, {kills} break a law")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else print_the_list(sys.argv[1:])
