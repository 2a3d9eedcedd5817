"""Compare a result with the expected one, quantity by quantity, and recognise what kind of error it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from course_lib.trees import named_leaves

# Relative to the largest entry of an array, or to 1. A slip gives 1e-2 or more; float32 on the way, a difference quotient, or
# the 1e-6 that some add to a norm give less than 1e-6; float32 to the end somewhat more.
TOLERANCE, TOLERANCE_SINGLE = 2e-6, 1e-4
IN_TIME = {"hs", "dx"}  # quantities whose first axis is time


class MisfitError(Exception):
    """A result of another form than the expected one; the message says how."""


class Verdict(NamedTuple):
    """One quantity. problem: what is wrong, empty if nothing is. missing: it is None, not written yet."""

    name: str
    problem: str
    hint: str = ""
    missing: bool = False


def verdicts(expected: Any, got: Any, names: Sequence[str] = (), gates: str = "") -> list[Verdict]:
    """Judge every quantity of a result, in order.

    Args:     expected: an array, a number, or a tree of them. got: the learner's; lists and plain tuples will do. names: of
              the parts of ``expected``, or of all of it. gates: the order of the gate rows, as in "i f g o".
    Raises:   MisfitError: not the number of values expected, or no value at all.
    """
    if got is None:
        raise MisfitError("it returned None: is the `return` missing?")
    return [_verdict(name, right, value, gates.split()) for name, right, value in _aligned(expected, got, tuple(names))]


def made_the_same(expected: Any, got: Any, mistake: Any, only: str = "", names: Sequence[str] = ()) -> bool:
    """Whether a mistake shows, and its result is the learner's: in all that is written, or only in one quantity.

    Args:     expected: the right result; got, mistake: two others. only: the name of a quantity. names: as in ``verdicts``.
    """
    try:
        rows = zip(_aligned(expected, got, tuple(names)), _aligned(expected, mistake, tuple(names)), strict=True)
        triples = [(right, a, b) for (name, right, a), (_, _, b) in rows if a is not None and only in ("", name)]
        visible = any(_verdict("", right, b, []).problem for right, _, b in triples)
        return visible and all(_alike(a, b) for _, a, b in triples)
    except Exception:  # a result that is no array
        return False


def _alike(a: Any, b: Any) -> bool:
    a, b = _array(a), _array(b)
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5, atol=1e-7, equal_nan=True))


def _array(value: Any) -> np.ndarray:
    """An array of anything that can be one, torch's tensors and lists of them included."""
    if isinstance(value, list):
        value = [part.detach() if hasattr(part, "detach") else part for part in value]
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def _aligned(expected: Any, got: Any, names: tuple, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, expected leaf, got leaf)."""
    expected = tuple(expected) if isinstance(expected, list) else expected
    if got is None:
        yield from ((f"{prefix}.{name}".strip("."), leaf, None) for name, leaf in named_leaves(expected))
    elif not isinstance(expected, tuple):
        yield prefix or (names[0] if names else "result"), expected, got
    else:
        fields = getattr(expected, "_fields", ())
        if len(names) == 1:
            prefix, names = names[0], ()
        labels = names or fields or tuple(map(str, range(len(expected))))
        what = f"{len(expected)} values" + (f" ({', '.join(labels)})" if names or fields else "")
        if not isinstance(got, tuple | list) or len(got) != len(expected):
            came = f"{len(got)}" if isinstance(got, tuple | list) else f"one {type(got).__name__}"
            raise MisfitError(f"{prefix or 'it returned the wrong count'}: expected {what}, got {came}")
        for label, right, value in zip(labels, expected, got, strict=True):
            yield from _aligned(right, value, (), f"{prefix}.{label}".strip("."))


def _verdict(name: str, right: Any, value: Any, gates: list[str]) -> Verdict:
    if value is None:
        return Verdict(name, "", missing=True)
    right = np.asarray(right)
    try:
        value = _array(value)
    except Exception as error:  # rows of different lengths, or an object that cannot be an array
        return Verdict(name, f"cannot be read as numbers ({type(error).__name__})")
    if value.dtype.kind not in "biuf":
        return Verdict(name, f"expected real numbers, got {'complex ones' if value.dtype.kind == 'c' else _type_of(value)}")
    if value.shape != right.shape:
        hint = "is it the transpose?" if value.shape == right.shape[::-1] else ""
        return Verdict(name, f"expected shape {right.shape}, got {value.shape}", hint)
    single = value.dtype.kind == "f" and value.dtype.itemsize < 8
    value = value.astype(float)
    finite = np.isfinite(right)
    largest = np.abs(right, where=finite, out=np.zeros(right.shape)).max(initial=1)
    with np.errstate(invalid="ignore"):
        error = np.abs(value - right)
        close = (value == right) | (finite & (error <= largest * (TOLERANCE_SINGLE if single else TOLERANCE)))
    if close.all():
        return Verdict(name, "")
    spoiled = finite & ~np.isfinite(value)
    if spoiled.any():
        hint = "overflow, 0/0, or memory never filled (np.empty)?" if finite.all() else ""
        where = _first(spoiled)
        return Verdict(name, f"expected numbers, got {value[where]:g}{_at(where)} ({spoiled.sum()} in all)", hint)
    worst = np.unravel_index(np.argmax(np.where(close, -1, np.nan_to_num(error, nan=np.inf))), right.shape)
    digits = next((d for d in (6, 9, 12) if f"{right[worst]:.{d}g}" != f"{value[worst]:.{d}g}"), 17)
    problem = f"worst entry{_at(worst)}: expected {right[worst]:.{digits}g}, got {value[worst]:.{digits}g}"
    if (error[finite] <= 1e-4 * largest).all():
        return Verdict(name, problem, "right to about four digits: a rough difference quotient, or a constant added somewhere?")
    return Verdict(name, problem, recognise(right, value, gates if "params" in name else [], name in IN_TIME))


def recognise(right: np.ndarray, value: np.ndarray, gates: Sequence[str] = (), in_time: bool = False) -> str:
    """A hint for an error that shows in the numbers: zero, sign, factor, transpose, gates permuted, time reversed, shifted."""

    def equal(a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-6, atol=1e-9))

    if not np.isfinite(right).all() or not right.any():
        return ""
    if not value.any():
        return "it is zero everywhere: is it ever assigned?"
    if equal(value, -right):
        return "the sign is wrong everywhere"
    factor = float(np.vdot(right, value) / np.vdot(right, right))
    if right.size > 1 and abs(factor - 1) > 0.01 and equal(value, factor * right):
        return f"all of it is {factor:.3g} times what is expected: a factor too many or too few, a mean for a sum?"
    if right.ndim == 2 and right.shape[0] == right.shape[1] and equal(value, right.T):
        return "it is the transpose"
    if gates and right.ndim and len(right) % len(gates) == 0:
        blocks = np.split(value, len(gates))
        for order in permutations(range(len(gates))):
            if order != tuple(range(len(gates))) and equal(np.concatenate([blocks[k] for k in order]), right):
                mine = [""] * len(gates)
                for wanted, had in zip(gates, order, strict=True):
                    mine[had] = wanted
                return f"the gates stand in the order {', '.join(mine)}; expected {', '.join(gates)}"
    if in_time and equal(value[::-1], right):
        return "it is reversed in time"
    if in_time and len(right) > 1 and (equal(value[1:], right[:-1]) or equal(value[:-1], right[1:])):
        return "it is shifted by one time step"
    return ""


def _type_of(value: np.ndarray) -> str:
    if value.dtype.kind in "US":
        return "text"
    return type(value.item()).__name__ if value.ndim == 0 else f"an array of {value.dtype}"


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.argwhere(mask)[0])


def _at(index: tuple) -> str:
    return f" at {[int(k) for k in index]}" if index else ""
