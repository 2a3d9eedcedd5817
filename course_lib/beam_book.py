"""The exercises of lessons 09 and 10 on tokens: the teacher-forcing shift, the loss, one step of beam search, BLEU's counts.

Most mistakes are the right function with one piece of its source replaced: the list reads as a list of slips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from course_lib.exercise_book import Exercise, slips
from course_lib.layers import log_softmax
from course_lib.units import BOS_ID, EOS_ID, PAD_ID, UNK_ID


def shifted(targets: np.ndarray) -> np.ndarray:
    """The decoder's inputs when it is taught: the begin token, then the targets, each one step later.

    Args:     targets: (T, N) tokens that finish with the end token and then padding.
    Returns:  (T, N): inputs[t] is the token before targets[t].
    """
    begin = np.full_like(targets[:1], BOS_ID)
    return np.concatenate([begin, targets[:-1]])


def token_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean of -log p(target) over the targets that are not padding, in nats per token.

    Args:     logits: (T, N, V). targets: (T, N).
    """
    log_probs = log_softmax(logits)
    of_targets = np.take_along_axis(log_probs, targets[:, :, None], axis=2)[:, :, 0]
    real = targets != PAD_ID
    return -of_targets[real].mean()


def beam_step(totals: np.ndarray, log_probs: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ``width`` most probable continuations of all beams by one token, the best first.

    Args:     totals: (K,), the log-probability of each beam so far. log_probs: (K, V), of each token behind each beam.
    Returns:  beam, token, totals, each (width,): which beam is continued, by which token, and how probable that is.
    """
    grown = totals[:, None] + log_probs
    chosen = np.argsort(-grown, axis=None)[:width]
    beam, token = np.divmod(chosen, log_probs.shape[1])
    return beam, token, grown.flat[chosen]


def clipped_precision(hypothesis: Sequence[str], reference: Sequence[str], n: int) -> tuple[int, int]:
    """How many n-grams of the hypothesis the reference has too, each no more often than there; and how many there are.

    Args:     hypothesis, reference: words. n: at least 1.
    Returns:  matches, total.
    Reference: Papineni et al. 2002.
    """
    counts, allowed = (Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in (hypothesis, reference))
    matches = sum(min(count, allowed[gram]) for gram, count in counts.items())
    return matches, counts.total()


def _targets(rng: np.random.Generator, V: int = 12) -> np.ndarray:
    """(T, N) tokens: words, the end token, then padding; the lengths differ."""
    T, N = int(rng.integers(3, 8)), int(rng.integers(1, 5))
    targets, lengths = rng.integers(UNK_ID, V, (T, N)), rng.integers(1, T, N)
    lengths[rng.integers(N)] = T
    targets[lengths - 1, np.arange(N)] = EOS_ID
    targets[np.arange(T)[:, None] >= lengths] = PAD_ID
    return targets


def _logits(rng: np.random.Generator) -> tuple:
    V = int(rng.integers(6, 12))
    targets = _targets(rng, V)
    return rng.normal(0, 2, (*targets.shape, V)) + rng.choice([0, 0, 1000]) * rng.choice([-1, 1], (*targets.shape, 1)), targets


def _beams(rng: np.random.Generator) -> tuple:
    K, V = int(rng.integers(1, 5)), int(rng.integers(6, 10))
    return rng.normal(-7, 1.5, K), log_softmax(rng.normal(0, 1.5, (K, V))), int(rng.integers(1, 6))


def _sentences(rng: np.random.Generator) -> tuple:
    """A reference of few different words, and a hypothesis that repeats, drops and replaces some of them."""
    words = "the the a cat cat dog sat saw on mat".split()
    reference = [str(word) for word in rng.choice(words, rng.integers(4, 10))]
    hypothesis: list[str] = []
    for word in reference[: rng.integers(1, len(reference) + 1)]:
        hypothesis += [[word], [word], [word], [word] * 2, [], [str(rng.choice(words))]][rng.integers(6)]
    if rng.random() < 0.5:
        hypothesis += hypothesis[-3:]
    n = int(rng.choice([1, 1, 2, 2, 3, 4]))
    if rng.random() < 0.3:  # too short for an n-gram, if n > 1
        hypothesis = hypothesis[: rng.integers(1, max(n, 2))]
    return hypothesis, reference, n


_COUNTER = "Counter(zip(*(words[k:] for k in range(n)), strict=False))"
_MATCHES = "sum(min(count, allowed[gram]) for gram, count in counts.items())"

BEAM_EXERCISES: dict[str, Exercise] = {
    "shifted": Exercise(
        "9.1",
        shifted,
        lambda rng: (_targets(rng),),
        [
            *slips(
                shifted,
                ("nothing is shifted: the decoder would read the very token it shall predict",
                 "np.concatenate([begin, targets[:-1]])", "targets.copy()"),
                ("that is shifted the other way: inputs[t] is the token before targets[t], not the one after it",
                 "[begin, targets[:-1]]", "[targets[1:], np.full_like(begin, PAD_ID)]"),
                ("the begin token replaces the first token, and nothing is shifted: drop the last row instead",
                 "targets[:-1]", "targets[1:]"),
                ("the first input is the begin token, 1, not padding", "BOS_ID", "PAD_ID"),
                ("the first input is the begin token, 1, not the end token, 2", "BOS_ID", "EOS_ID"),
                ("np.roll carries the last row to the front: the first input is the begin token",
                 "np.concatenate([begin, targets[:-1]])", "np.roll(targets, 1, axis=0)"),
                ("there are as many inputs as targets: the last row is never an input", "targets[:-1]", "targets"),
                ("there are as many inputs as targets: the begin token is missing", "[begin, targets[:-1]]", "[targets[:-1]]"),
                ("time is axis 0: that shifts along the streams",
                 "targets[:1]", "targets[:, :1]", "targets[:-1]]", "targets[:, :-1]], axis=1"),
                ("time is axis 0: that shifts through the streams, as if they were one",
                 "np.concatenate([begin, targets[:-1]])", "np.append(BOS_ID, targets)[:-1].reshape(targets.shape)"),
                ("shifted by one step, not by two", "[begin, targets[:-1]]", "[begin, begin, targets[:-2]]"),
                ("the end token of a shorter stream stays an input: its target is padding, which does not count",
                 "targets[:-1]]", "np.where(targets == EOS_ID, PAD_ID, targets)[:-1]]"),
            ),
        ],
        arguments="targets", outputs="inputs",
    ),
    "token_loss": Exercise(
        "9.2",
        token_loss,
        _logits,
        [
            *slips(
                token_loss,
                ("padding is no token: it must not count", "of_targets[real]", "of_targets"),
                ("the padding's loss is left out, and its number is not: divide by the number of real targets",
                 "of_targets[real].mean()", "(of_targets * real).mean()"),
                ("the mean over the tokens is asked for, not their sum", ".mean()", ".sum()"),
                ("per token, not per sentence: divide by the number of real targets",
                 "of_targets[real].mean()", "of_targets[real].sum() / targets.shape[1]"),
                ("a short sentence must not count as much as a long one: one mean over all real targets",
                 "of_targets[real].mean()", "((of_targets * real).sum(axis=0) / real.sum(axis=0)).mean()"),
                ("the targets say what is padding, not the model's predictions",
                 "targets != PAD_ID", "logits.argmax(axis=2) != PAD_ID"),
                ("the end token is to be predicted too: only padding does not count", "targets != PAD_ID", "targets > EOS_ID"),
                ("padding and real are exchanged", "targets != PAD_ID", "targets == PAD_ID"),
                ("the softmax is over the vocabulary, the last axis; axis 0 is time",
                 "log_softmax(logits)", "np.moveaxis(log_softmax(np.moveaxis(logits, 0, -1)), -1, 0)"),
                ("the softmax is over the vocabulary, the last axis; axis 1 is the streams",
                 "log_softmax(logits)", "np.moveaxis(log_softmax(np.moveaxis(logits, 1, -1)), -1, 1)"),
                ("logits are no log-probabilities: log_softmax is missing", "log_softmax(logits)", "logits"),
                ("e^1000 is infinite: subtract each row's maximum first",
                 "log_softmax(logits)", "np.log(np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True))"),
                ("the sign is missing: a loss is -log p", "return -", "return "),
                ("nats are asked for, not the perplexity", "-of_targets[real].mean()", "np.exp(-of_targets[real].mean())"),
                ("nats are asked for, not bits: no log2", "of_targets[real].mean()", "of_targets[real].mean() / np.log(2)"),
                ("the mean of the logarithms, not the logarithm of the mean",
                 "-of_targets[real].mean()", "-np.log(np.exp(of_targets[real]).mean())"),
                ("the probability of the target is asked for, not that of the best token",
                 "return -of_targets[real]", "return -log_probs.max(axis=2)[real]"),
            ),
        ],
        arguments="logits targets", outputs="loss",
    ),
    "beam_step": Exercise(
        "10.4",
        beam_step,
        _beams,
        [
            *slips(
                beam_step,
                ("those are the worst: sort by -grown", "np.argsort(-grown", "np.argsort(grown"),
                ("the best first: the order is reversed", "[:width]", "[:width][::-1]"),
                ("the best first: those are in the order of their beams", "[:width]", "[:width]; chosen.sort()"),
                ("the best first: those are in the order of their tokens",
                 "[:width]", "[:width]; chosen = chosen[np.argsort(chosen % log_probs.shape[1], kind='stable')]"),
                ("a continuation is as probable as its beam times its token: add totals",
                 "totals[:, None] + log_probs", "log_probs"),
                ("choose by the whole beam, not by the next token alone: add totals before sorting",
                 "np.argsort(-grown", "np.argsort(-log_probs"),
                ("the totals of the continuations are asked for, not the last token's part", "grown.flat", "log_probs.flat"),
                ("the totals of the continuations are asked for, not those of the beams", "grown.flat[chosen]", "totals[beam]"),
                ("probabilities multiply, so their logarithms add", "[:, None] + log_probs", "[:, None] * log_probs"),
                ("log-probabilities add to log-probabilities: no exp", "+ log_probs", "+ np.exp(log_probs)"),
                ("a row has V entries: divide the place by V, not by the number of beams",
                 "log_probs.shape[1]", "log_probs.shape[0]"),
                ("beam and token are exchanged: the quotient is the beam, the remainder the token",
                 "beam, token = np", "token, beam = np"),
                ("the token is the remainder, not the place among all", "return beam, token", "return beam, chosen"),
                ("width best of all continuations together, not of each beam",
                 "np.argsort(-grown, axis=None)[:width]",
                 "(np.argsort(-grown)[:, :width] + log_probs.shape[1] * np.arange(len(totals))[:, None]).ravel()"),
                ("a beam may have several children, and another none: not the best token of each",
                 "np.argsort(-grown", "np.argsort(-np.where(grown == grown.max(axis=1, keepdims=True), grown, -np.inf)",
                 "[:width]", "[: len(grown)]"),
                ("only the best beam is continued: all of them are",
                 "np.argsort(-grown", "np.argsort(-np.where(totals[:, None] == totals.max(), grown, -np.inf)"),
                ("one token may stand behind several beams: not each token once",
                 "np.argsort(-grown", "np.argsort(-np.where(grown == grown.max(axis=0), grown, -np.inf)"),
                ("as many as width, not as many as there were beams: the first step has one", "[:width]", "[:len(totals)]"),
                ("only the best one: that is greedy decoding; width are asked for", "[:width]", "[:1]"),
            ),
        ],
        arguments="totals log_probs width", outputs="beam token totals",
    ),
    "clipped_precision": Exercise(
        "10.5",
        clipped_precision,
        _sentences,
        [
            *slips(
                clipped_precision,
                ("a word repeated is not right each time: no more often than in the reference",
                 "min(count, allowed[gram])", "count * (gram in allowed)"),
                ("that is how often the reference has it: the smaller of both", "min(count, allowed[gram])", "allowed[gram]"),
                ("what occurs twice in both matches twice: the smaller of both counts, not 1",
                 "min(count, allowed[gram])", "min(1, allowed[gram])"),
                ("sets forget how often: count", _MATCHES, "len(set(counts) & set(allowed))", "counts.total()", "len(counts)"),
                ("every n-gram of the hypothesis counts in the total, repeated ones too", "counts.total()", "len(counts)"),
                ("the total is that of the hypothesis; with the reference's it is recall", "counts.total()", "allowed.total()"),
                ("the total is the number of n-grams, not of words", "counts.total()", "len(hypothesis)"),
                ("n words have one n-gram, not none: len - n + 1; a 0 when there are fewer than n",
                 _COUNTER, "Counter(tuple(words[i : i + n]) for i in range(len(words) - n))"),
                ("a hypothesis shorter than n has no n-gram: 0, not a negative number",
                 "counts.total()", "len(hypothesis) - n + 1"),
                ("only single words are counted, whatever n is", "range(n)", "range(1)"),
                ("those are (n + 1)-grams", "range(n)", "range(n + 1)"),
                ("only n-grams of n words, not the shorter ones too",
                 _COUNTER, "Counter(tuple(words[i : i + m]) for m in range(1, n + 1) for i in range(len(words) - m + 1))"),
                ("n-grams overlap: one begins at every word",
                 _COUNTER, "Counter(tuple(words[i : i + n]) for i in range(0, len(words) - n + 1, n))"),
                ("an n-gram has an order: no set, no sorting",
                 _COUNTER, "Counter(tuple(sorted(words[i : i + n])) for i in range(len(words) - n + 1))"),
                ("n-grams of words are asked for, not of letters", "words in (hypothesis, reference)",
                 "words in map(' '.join, (hypothesis, reference))"),
                ("an n-gram may stand anywhere in the reference, not only in the same place",
                 _MATCHES, "sum(hypothesis[i : i + n] == reference[i : i + n] for i in range(len(hypothesis) - n + 1))"),
                ("matches and total are exchanged", "return matches, counts.total()", "return counts.total(), matches"),
                ("the counts are asked for, not their ratio: BLEU adds them up over the corpus before it divides",
                 "return matches,", "return matches / max(1, counts.total()),"),
            ),
        ],
        arguments="hypothesis reference n", outputs="matches total",
    ),
}  # fmt: skip
