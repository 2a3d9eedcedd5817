"""Use a translator: batches of pairs, true perplexity, translations by greedy decoding or beam search, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib import dates
from course_lib.decoding import beam_search, greedy
from course_lib.errors import CourseError
from course_lib.pairs import Pairs, clean
from course_lib.seq2seq import BOS, EOS, PAD, UNK, DecoderState, Seq2Seq, make_step, next_log_probs, shifted
from course_lib.torch_tokens import columns, similar_lengths
from course_lib.translator import Translator
from course_lib.units import UnitTokenizer

AT_ONCE = 256  # sources translated, or pairs evaluated, side by side
NUMBERED = tuple(f"<unk{k}>" for k in range(1, 9))  # of a vocabulary that copies: the rare words of a source, in order
TOO_LONG = 2  # times the longest source of training: there the model knows nothing


class Encoded(NamedTuple):
    """Pairs as tokens: for each the source (S,) and the target (T,), which finishes with the end token."""

    source: list[np.ndarray]
    target: list[np.ndarray]


class Source(NamedTuple):
    """Sources side by side. tokens: (S, N) int64, padded on the right. lengths: (N,) int64, at least 1."""

    tokens: Tensor
    lengths: Tensor


class Translation(NamedTuple):
    """What a model makes of a source.

    text: an unknown word is replaced by the source word that attention looked at most. log_prob: of all its tokens, in nats.
    score: log_prob / tokens^length_penalty. ended: whether the model ended it (else it was cut). tokens: its ids, with the end.
    """

    text: str
    log_prob: float
    score: float
    ended: bool
    tokens: np.ndarray

    @property
    def probability(self) -> float:
        """Of the whole translation, e^log_prob: what the model thinks of it, which is not how often it is right."""
        return math.exp(self.log_prob)


def encode(pairs: Pairs, source: UnitTokenizer, target: UnitTokenizer) -> Encoded:
    """Pairs as tokens.

    With NUMBERED among the units, the k-th word of a source that the vocabulary lacks becomes <unkk>, and the same word in its
    target the same token: what to do with a rare word can be learned without knowing it (Luong, Sutskever et al. 2015).

    Raises:   CourseError: a side of a pair has no token.
    """
    found = Encoded([], [])
    for text, translated in zip(*pairs, strict=True):
        ids, rare = numbered(source, text)
        found.source.append(ids)
        found.target.append(np.append(numbered(target, translated, rare)[0], EOS))
    for n, (s, t) in enumerate(zip(*found, strict=True)):
        if not len(s) or len(t) < 2:
            shown = f"{pairs.source[n]!r:.40} | {pairs.target[n]!r:.40}"
            raise CourseError(f"pair {n + 1} has an empty side ({shown}); take it out")
    return found


def numbered(units: UnitTokenizer, text: str, rare: dict[str, int] | None = None) -> tuple[np.ndarray, dict[str, int]]:
    """The tokens of a text, and its rare words with their numbers, 0, 1, ...

    Args:     rare: those of the source, if the text is a target: it may use them, and adds none.
    """
    ids, first = units.encode(text), units.vocabulary.ids.get(NUMBERED[0])
    known, most = ({}, len(NUMBERED)) if rare is None else (dict(rare), 0)
    for place, unit in enumerate(units.split(text) if first else ()):
        if ids[place] == UNK and (unit in known or len(known) < most):
            ids[place] = first + known.setdefault(unit, len(known))
    return ids, known


def batches(data: Encoded, batch_size: int, rng: np.random.Generator) -> Iterator[tuple[Source, Tensor]]:
    """All pairs once, dealt anew: pairs of similar length share a batch. Yields (source, targets (T, N))."""
    for places in similar_lengths(np.array([len(s) + len(t) for s, t in zip(*data, strict=True)]), batch_size, rng):
        yield batch([data.source[n] for n in places], [data.target[n] for n in places])


def batch(source: Sequence[np.ndarray], target: Sequence[np.ndarray]) -> tuple[Source, Tensor]:
    """Some pairs as columns: (source, targets (T, N))."""
    return Source(*columns(source)), columns(target)[0]


@torch.no_grad()
def evaluate(model: Seq2Seq, data: Encoded) -> tuple[float, int]:
    """Total nats of the true targets, each token predicted from the true ones before it, and the number of tokens.

    e^(nats/tokens) is the perplexity. (Fed with its own guesses, a model is asked about sentences that nobody wrote.)
    """
    training, device, total, count = model.training, model.bias.device, 0.0, 0
    model.eval()
    order = np.argsort([len(t) for t in data.target], kind="stable")
    for k in range(0, len(order), AT_ONCE):
        places = order[k : k + AT_ONCE]
        source, targets = batch([data.source[n] for n in places], [data.target[n] for n in places])
        targets = targets.to(device)
        logits = model(source.tokens.to(device), source.lengths.to(device), shifted(targets))
        real = targets != PAD
        found = logits.log_softmax(2).gather(2, targets[..., None])[..., 0]
        total, count = total - found[real].double().sum().item(), count + int(real.sum())
    model.train(training)
    return total, count


def translate(
    translator: Translator, texts: Sequence[str], width: int = 1, length_penalty: float = 1.0, model: Seq2Seq | None = None
) -> list[Translation]:
    """The best translation found of each text.

    Args:     width: 1 is greedy decoding, many texts at a time; above, beam search, one text after the other.
              model: to be used instead of ``translator.model()``, when it is at hand or on a GPU.
    Raises:   CourseError: an empty text, or one much longer than those of training.
    """
    model = translator.model() if model is None else model
    if width > 1:
        return [candidates(translator, text, width, length_penalty, 1, model)[0] for text in texts]
    sources = [source_tokens(translator, text) for text in texts]
    order = sorted(range(len(texts)), key=lambda n: len(sources[n]))
    found: dict[int, Translation] = {}
    for k in range(0, len(order), AT_ONCE):
        places = order[k : k + AT_ONCE]
        some = [sources[n] for n in places]
        first = np.full(len(places), BOS)
        written = greedy(make_step(model), encoded_state(model, some), first, translator.config["longest"][1], EOS)
        tokens = [_until_end(column) for column in written.T]
        found |= zip(places, _translations(translator, model, [texts[n] for n in places], some, tokens, length_penalty),
                     strict=True)  # fmt: skip
    return [found[n] for n in range(len(texts))]


def candidates(
    translator: Translator,
    text: str,
    width: int = 5,
    length_penalty: float = 1.0,
    n_best: int | None = None,
    model: Seq2Seq | None = None,
) -> list[Translation]:
    """The best translations of one text that a beam of this width finds, the best first.

    Raises:   CourseError: an empty text, or one much longer than those of training. ValueError: see decoding.beam_search.
    """
    model = translator.model() if model is None else model
    source, step = source_tokens(translator, text), make_step(model)  # which ends dropout
    state, length = encoded_state(model, [source]), translator.config["longest"][1]
    found = beam_search(step, state, BOS, length, width, EOS, length_penalty, n_best)
    tokens = [hypothesis.tokens for hypothesis in found]
    return _translations(translator, model, [text] * len(found), [source] * len(found), tokens, length_penalty)


def source_tokens(translator: Translator, text: str) -> np.ndarray:
    """The tokens of a text to be translated.

    Raises:   CourseError: it has none, or more than twice as many as the longest source of training.
    """
    tokens, longest = numbered(translator.source, prepared(translator, text))[0], translator.config["longest"][0]
    if not len(tokens):
        raise CourseError("the text to translate is empty; give at least one character")
    if len(tokens) > TOO_LONG * longest:
        raise CourseError(
            f"the text has {len(tokens)} {translator.source.kind} and the model learned from at most {longest}; "
            "translate it in parts"
        )
    return tokens


def prepared(translator: Translator, text: str) -> str:
    """The text as the sources of training were written."""
    return dates.clean(text) if translator.config["prepare"] == "dates" else clean(text)


@torch.inference_mode()
def encoded_state(model: Seq2Seq, sources: Sequence[np.ndarray]) -> DecoderState:
    """The state in which the decoder begins, for sources side by side."""
    return model.encode(*(part.to(model.bias.device) for part in columns(sources)))


@torch.inference_mode()
def alignment(model: Seq2Seq, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """alpha (T, S) of one pair: where attention looks before each token of the target, which is given (teacher forcing)."""
    return _given(model, [source], [target])[1][:, 0].cpu().numpy()


def _given(model: Seq2Seq, sources: list[np.ndarray], targets: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """The log-probabilities of given targets, (T, N) with 0 at padding, and alpha (T, N, S)."""
    tokens = columns(targets)[0].to(model.bias.device)
    logits, _, alpha = model.decode(shifted(tokens), encoded_state(model, sources))
    found = next_log_probs(logits).gather(2, tokens[..., None])[..., 0]
    return found.masked_fill(tokens == PAD, 0), alpha


@torch.inference_mode()
def _translations(
    translator: Translator, model: Seq2Seq, texts: list[str], sources: list[np.ndarray], targets: list[np.ndarray],
    length_penalty: float,
) -> list[Translation]:  # fmt: skip
    """What was found, in words, with its log-probability."""
    log_probs, alpha = _given(model, sources, targets)
    totals = log_probs.double().sum(0).tolist()
    found = []
    for n, (text, tokens, total) in enumerate(zip(texts, targets, totals, strict=True)):
        pieces, looked_at = [], alpha[:, n].argmax(1).tolist()
        units = translator.source.split(prepared(translator, text))
        rare = dict(zip(NUMBERED, numbered(translator.source, prepared(translator, text))[1], strict=False))
        for t, token in enumerate(tokens.tolist()):
            if token == UNK and model.attention is not None:
                pieces.append(units[looked_at[t]])
            elif token != EOS:
                unit = translator.target.vocabulary.tokens[token]
                pieces.append(rare.get(unit, unit))
        score = total / len(tokens) ** length_penalty
        found.append(Translation(translator.target.join(pieces), total, score, bool(tokens[-1] == EOS), tokens))
    return found


def _until_end(tokens: np.ndarray) -> np.ndarray:
    """The tokens up to the first end token, which is kept."""
    ends = np.flatnonzero(tokens == EOS)
    return tokens[: ends[0] + 1] if len(ends) else tokens
