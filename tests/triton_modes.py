"""The Triton kernels in one process in two ways: interpreted by NumPy, or compiled, for which no GPU need be there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

import course_lib

NAME = "course_lib.torch_triton"


@contextmanager
def kernels(interpreted: bool) -> Iterator[ModuleType]:
    """Within it, ``torch_kernels`` uses a fresh ``torch_triton``: TRITON_INTERPRET acts when the kernels are defined."""
    pytest.importorskip("triton", reason="Triton exists for Linux only")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
        _forget()
        try:
            yield importlib.import_module(NAME)
        finally:
            _forget()


def _forget() -> None:
    sys.modules.pop(NAME, None)
    if hasattr(course_lib, "torch_triton"):
        del course_lib.torch_triton
