"""Let a language model write: continue prompts, several samples of each in one batch; or read and write by turns.

Each sample has random numbers of its own, so that it does not depend on how many others are written beside it. A batch and a
single stream take the same numbers but sum their matrix products in different orders: log-probabilities agree to about 1e-6,
and a draw that falls within that of a border can come out differently.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from course_lib import decoding
from course_lib.checkpoint import Checkpoint
from course_lib.constraints import allow, matching
from course_lib.errors import CourseError
from course_lib.filters import Filter, forbid, require
from course_lib.language_model import forward, initial_state, make_step
from course_lib.text import UNKNOWN_ID, CharTokenizer
from course_lib.trees import map_tree

BATCH = 64  # streams written side by side
_LOGITS = 1 << 22  # numbers held at once while prompts are read
Show = Callable[[int, str], None]


class Continuation(NamedTuple):
    """What a model wrote behind a prompt."""

    prompt: str  # as given
    text: str  # without the stop string
    log_probs: np.ndarray  # (len(text),) nats: of each character under the model itself, before any filter
    stopped: str  # why: "length"; "stop", a stop string came; "match", the pattern is complete

    @property
    def nats(self) -> float:
        """The mean nats per character of the text; NaN for none."""
        return -float(self.log_probs.mean(dtype=np.float64)) if self.text else float("nan")


def generator(seed: int, prompt: int = 0, sample: int = 0) -> np.random.Generator:
    """The random numbers of one sample of one prompt, counted from 0; the first of all is ``default_rng(seed)`` itself."""
    place = (prompt, sample) if prompt or sample else ()
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def continuations(
    model: Checkpoint,
    prompts: str | Sequence[str],
    length: int,
    filters: Sequence[Filter] = (),
    samples: int = 1,
    stop: Sequence[str] = (),
    seed: int = 0,
    only: str | None = None,
    match: str | None = None,
    show: Show | None = None,
) -> Iterator[Continuation]:
    """Continue each prompt ``samples`` times, up to BATCH streams side by side; arguments are checked at once.

    The order of filters: the unknown character is forbidden, then ``only`` and ``match``, then ``filters`` as given.

    Args:     prompts: their unknown characters are skipped. length: of a text, at least 1 character.
              stop: a text ends before the first of these that is complete in it (of two complete at once, the longer); the
              prompt is not searched. only: characters that may be written. match: a pattern for each whole text; see
              ``constraints.matching``. show: called with (number of the text, piece) as soon as no stop string can take the
              piece back; all pieces of a text make up the text.
    Yields:   the continuations of the first prompt, then those of the second, ...; text k of prompt i takes its random
              numbers from ``generator(seed, i, k)``.
    Raises:   CourseError: a prompt without a character that the model knows. ValueError: naming the argument.
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    require(samples >= 1, "samples", "at least 1", samples)
    require(length >= 1, "length", "at least 1", length)
    tokenizer = model.tokenizer
    stops = check_stops(stop, tokenizer)
    filters = [*constraints(tokenizer, only, match), *filters]
    tokens = [known_tokens(tokenizer, prompt) for prompt in prompts]
    if silent := [i for i, known in enumerate(tokens) if not known.size]:
        which = "the prompt" if len(prompts) == 1 else f"prompt {silent[0] + 1}, {prompts[silent[0]]!r:.40},"
        raise CourseError(f"{which} has no character that the model knows; begin with at least one letter")

    def batches() -> Iterator[Continuation]:
        step, streams = make_step(model.params), [(i, k) for i in range(len(prompts)) for k in range(samples)]
        for start in range(0, len(streams), BATCH):
            batch = streams[start : start + BATCH]
            distinct = list(dict.fromkeys(i for i, _ in batch))  # a prompt is read once for all its samples
            state, first = read(model, [tokens[i] for i in distinct], initial_state(model.params, len(distinct)))
            rows = [distinct.index(i) for i, _ in batch]
            state = map_tree(lambda leaf, rows=rows: leaf[rows], state)
            drafts = [Draft(prompts[i], stops) for i, _ in batch]
            shown = None if show is None else (lambda n, piece, start=start: show(start + n, piece))
            write(step, state, first[rows], tokenizer, drafts, [generator(seed, *at) for at in batch], length, filters, shown)
            yield from (draft.finished() for draft in drafts)

    return batches()


def continue_text(*arguments: Any, **named: Any) -> list[Continuation]:
    """All ``continuations``, as a list."""
    return list(continuations(*arguments, **named))


class Scene:
    """One stream that reads and writes by turns, its state carried on: nothing is ever read twice.

    After ``read`` and after ``write`` the state is that of a model which has read exactly ``text``.
    """

    def __init__(self, model: Checkpoint) -> None:
        self.model, self.text = model, ""
        self._step = make_step(model.params)
        self._state, self._last = initial_state(model.params, 1), np.empty(0, int)  # the last character is not read yet

    def read(self, text: str) -> None:
        """Read on; unknown characters are skipped."""
        self.text += text
        tokens = np.concatenate([self._last, known_tokens(self.model.tokenizer, text)])
        if tokens.size:
            self._state, self._last = read(self.model, [tokens], self._state)

    def write(
        self,
        length: int,
        rng: np.random.Generator,
        filters: Sequence[Filter] = (),
        stop: Sequence[str] = (),
        show: Callable[[str], None] | None = None,
    ) -> Continuation:
        """Write on; see ``continuations``. A stop string is neither in the text nor in the state.

        Raises:   CourseError: nothing is read so far. ValueError: naming the argument.
        """
        require(length >= 1, "length", "at least 1", length)
        if not self._last.size:
            raise CourseError("the scene is empty; give the model at least one letter to begin with")
        draft = Draft(self.text, check_stops(stop, self.model.tokenizer))
        states = deque([self._state], maxlen=draft.longest + 2)  # the last of them, for going back before a stop string

        def remembered(token: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
            log_probs, state = self._step(token, state)
            states.append(state)
            return log_probs, state

        shown = None if show is None else (lambda _, piece: show(piece))
        filters = [*constraints(self.model.tokenizer), *filters]
        write(remembered, self._state, self._last, self.model.tokenizer, [draft], [rng], length, filters, shown)
        result = draft.finished()
        self._state = states[len(result.text) - draft.steps - 1]
        self._last = np.concatenate([self._last, self.model.tokenizer.encode(result.text)])[-1:]
        self.text += result.text
        return result


class Draft:
    """What one stream has written so far, and how much of it no stop string can take back."""

    def __init__(self, prompt: str, stops: Sequence[str]) -> None:
        self.prompt, self.stopped, self.steps = prompt, "", 0
        self.characters: list[str] = []
        self.log_probs: list[float] = []
        self.stops = sorted(stops, key=len, reverse=True)  # the longer one first
        self.beginnings = sorted({s[:n] for s in stops for n in range(1, len(s))}, key=len, reverse=True)
        self.longest = max(map(len, stops), default=0)
        self.sure = 0  # characters shown

    def add(self, character: str, log_prob: float) -> None:
        """One step; no character: the pattern is complete."""
        self.steps += 1
        if not character:
            self.stopped = "match"
            return
        self.characters.append(character)
        self.log_probs.append(log_prob)
        if found := next((s for s in self.stops if self._ends_with(s)), None):
            del self.characters[-len(found) :], self.log_probs[-len(found) :]
            self.stopped = "stop"

    def fresh(self) -> str:
        """What has become certain since the last call."""
        held = 0 if self.stopped else next((len(s) for s in self.beginnings if self._ends_with(s)), 0)
        piece = "".join(self.characters[self.sure : len(self.characters) - held])
        self.sure += len(piece)
        return piece

    def finished(self) -> Continuation:
        """The result."""
        return Continuation(self.prompt, "".join(self.characters), np.array(self.log_probs), self.stopped)

    def _ends_with(self, text: str) -> bool:
        return self.characters[-1:] == [text[-1]] and self.characters[-len(text) :] == [*text]


def write(
    step: decoding.Step,
    state: Any,
    first: np.ndarray,
    tokenizer: CharTokenizer,
    drafts: Sequence[Draft],
    generators: Sequence[np.random.Generator],
    length: int,
    filters: Sequence[Filter],
    show: Show | None = None,
) -> None:
    """Fill the drafts, one a stream, until each has stopped, at ``length`` characters at the latest.

    A stream that has stopped is computed no more.
    """
    own: np.ndarray  # the model's own log-probabilities, (streams that still write, V)

    def noted(token: np.ndarray, state: Any) -> tuple[Any, Any]:
        nonlocal own
        own, state = step(token, state)
        return own, state

    def choose(log_probs: np.ndarray) -> np.ndarray:
        return decoding.draw(log_probs, Each([generators[n] for n in writing]))

    texts = ["", *tokenizer.characters]  # END is no character
    writing = np.arange(len(drafts))
    steps = decoding.stream(noted, state, first, choose, filters)
    going = None
    for _ in range(length):
        tokens = steps.send(going)
        log_probs = own[np.arange(len(tokens)), tokens]
        for n, token, log_prob in zip(writing, tokens, log_probs, strict=True):
            drafts[n].add(texts[token], float(log_prob))
            if drafts[n].steps == length:
                drafts[n].stopped = drafts[n].stopped or "length"
            if show is not None and (piece := drafts[n].fresh()):
                show(int(n), piece)
        going = np.array([not drafts[n].stopped for n in writing])
        writing = writing[going]
        if not writing.size:
            return


class Each:
    """Stands for one random generator in ``decoding.draw``: each row's number comes from a generator of its own."""

    def __init__(self, generators: Sequence[np.random.Generator]) -> None:
        self.generators = generators

    def random(self, shape: tuple[int, int]) -> np.ndarray:
        return np.array([own.random(shape[1:]) for own in self.generators])


def read(model: Checkpoint, tokens: Sequence[np.ndarray], state: tuple) -> tuple[tuple, np.ndarray]:
    """Read the tokens of each stream, all but the last: what a decoder needs to go on. At least one token a stream.

    Returns:  the state (of each stream after its own tokens), and the last tokens, (N,).
    """
    lengths = np.array([len(own) - 1 for own in tokens])
    padded = np.zeros((lengths.max(), len(tokens)), int)
    for n, own in enumerate(tokens):
        padded[: lengths[n], n] = own[:-1]
    piece = max(1, min(256, _LOGITS // (len(tokens) * model.tokenizer.size)))
    for start in range(0, len(padded), piece):
        part = padded[start : start + piece]
        _, state, _ = forward(model.params, part, state, np.clip(lengths - start, 0, len(part)))
    return state, np.array([own[-1] for own in tokens])


def constraints(tokenizer: CharTokenizer, only: str | None = None, match: str | None = None) -> list[Filter]:
    """The filters that come before all others."""
    held = [] if only is None else [allow(only, tokenizer)]
    return [forbid([UNKNOWN_ID]), *held, *([] if match is None else [matching(match, tokenizer)])]


def known_tokens(tokenizer: CharTokenizer, text: str) -> np.ndarray:
    """The tokens of a text without the unknown ones."""
    tokens = tokenizer.encode(text)
    return tokens[tokens != UNKNOWN_ID]


def check_stops(stops: Iterable[str], tokenizer: CharTokenizer) -> list[str]:
    """The stop strings; raises ValueError for one that could never come."""
    stops = list(stops)
    for stop in stops:
        unknown = tokenizer.unknown(stop)
        require(stop != "" and not unknown, "stop", "characters that the model can write", repr(stop))
    return stops
