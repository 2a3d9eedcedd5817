"""What a run of ``course train --task translate`` learns: dates, function names, or the pairs of a corpus or of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from course_lib import bodies, dates, metrics
from course_lib.budget import MEASURES, Config
from course_lib.engines import Engine
from course_lib.errors import CourseError
from course_lib.pairs import Pairs, ParallelCorpus, load_pairs
from course_lib.seq2seq import PAD, Seq2Seq
from course_lib.summaries import load_summaries
from course_lib.translation import NUMBERED, TOO_LONG, Source, batches, encode, evaluate, translate
from course_lib.translation_engine import TranslationEngine
from course_lib.translator import Translator, save
from course_lib.units import UnitTokenizer

DATES_A_PASS = 50_000  # pairs drawn for a pass; the next pass draws others
DATES_VALIDATED = 2_000
REFUSED = 0.12  # of the drawn pairs: sources that are no date
LONGEST_DATE = [60, 11]  # tokens of the sources, about, and of the targets with their end
DATES_SCORED = 200  # of each locale, by ``score``
MEASURED = 500  # held-out pairs translated at an evaluation, at most
ONE_WAY = {"dates": "what people write to ISO 8601", "summaries": "sentence to name", "bodies": "code to sentence"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class TranslationTask:
    """A ``tasks.Task``: batches of pairs of similar length, dealt anew in each pass."""

    def __init__(self, config: Config, saved: Translator | None = None):
        self.config, self.saved = config, saved
        if config.best_by not in (known := measured_by(config.data)):
            raise CourseError(f"--best-by {config.best_by}: --data {config.data} is measured by {', '.join(known)}; choose one")
        corpus = load_corpus(config)
        self.sha256 = corpus.sha256
        units = config.units or ("characters" if config.data == "dates" else "words")
        least = config.min_count or (2 if units == "words" else 1)
        if saved:
            self.source, self.target = saved.source, saved.target
        elif config.data == "dates":
            both = (dict.fromkeys(dates.alphabet() + LETTERS), "0123456789-" + dates.NO_DATE)
            self.source, self.target = (UnitTokenizer("characters", tuple(characters)) for characters in both)
        elif config.copy:  # one vocabulary: what is rare on one side is rare on the other
            both = UnitTokenizer.from_texts((*corpus.train.source, *corpus.train.target), units, least, lowercase=True)
            self.source = self.target = replace(both, tokens=(*both.tokens, *NUMBERED))
        else:
            self.source, self.target = (UnitTokenizer.from_texts(side, units, least, lowercase=True) for side in corpus.train)
        self.held_out = corpus.validation
        self.train, self.validation = (encode(part, self.source, self.target) for part in (corpus.train, corpus.validation))
        model = Seq2Seq(  # its configuration is wanted, the engine makes the weights by the seed
            self.source.size, self.target.size, config.embedding, config.hidden, config.layers, config.attention,
            dropout=config.dropout,
        )  # fmt: skip
        longest = [max(map(len, side)) for side in self.train]
        prepare = "dates" if config.data == "dates" else "sentences"
        self.model = {"model": model.config, "longest": LONGEST_DATE if prepare == "dates" else longest, "prepare": prepare}
        drawn = "pairs drawn for each pass" if prepare == "dates" else "pairs to train on"
        held_out = f"{len(self.validation.source):,} held out, V = {self.source.size} -> {self.target.size}"
        self.sizes = f"{len(self.train.source):,} {drawn}, {held_out}"

    def engine(self, rng: np.random.Generator) -> Engine:
        """Torch's: its random numbers follow from the seed."""
        if self.saved:  # what it holds; the trainer compares that with what was asked for
            return TranslationEngine(self.config, self.saved.config, self.saved.params)
        return TranslationEngine(self.config, self.model, None)

    def batches(self, number: int) -> Iterator[tuple[Source, Tensor]]:
        """Pass ``number``: of dates, others each time."""
        rng = np.random.default_rng([self.config.seed, number])
        data = self.train
        if self.config.data == "dates" and number:
            data = encode(Pairs(*dates.draw(rng, DATES_A_PASS, "train", REFUSED)[:2]), self.source, self.target)
        return batches(data, self.config.batch_size, rng)

    def count(self, targets: Tensor) -> int:
        """Those that are not padding."""
        return int((targets != PAD).sum())

    def measures(self, engine: TranslationEngine) -> dict[str, float]:
        """If ``config.best_by`` is not nats: of the greedy translations of up to 500 held-out pairs, from all over them."""
        if self.config.best_by == "nats":
            return {}
        translator = Translator({}, self.source, self.target, self.model, {}, {})
        longest = TOO_LONG * self.model["longest"][0]
        places = [n for n, tokens in enumerate(self.validation.source) if len(tokens) <= longest]  # others are refused
        some = [places[k * len(places) // MEASURED] for k in range(MEASURED)] if len(places) > MEASURED else places
        source, target = ([side[n] for n in some] for side in self.held_out)
        found = measures(self.config.data, engine.translations(translator, source), target, self.target)
        return {name: found[name] for name in MEASURES["translate"] if name in found}

    def save(self, path: Path, params: Any, record: dict, extra: dict[str, np.ndarray]) -> None:
        """See translator.save; the record also says which way the pairs were read."""
        record = record | {"target": self.config.target, "reverse": self.config.reverse}
        save(path, Translator(params, self.source, self.target, self.model, record, extra))


def load_corpus(config: Config) -> ParallelCorpus:
    """The pairs that a configuration names, in the direction it asks for.

    Raises:   CourseError: see pairs.load_pairs; pairs of one direction that are to be reversed; dates cut into words.
    """
    if config.data not in ONE_WAY:
        return load_pairs(config.data, config.target, config.reverse)
    if config.reverse or config.target:
        raise CourseError(f"--data {config.data} goes from {ONE_WAY[config.data]} only; leave out --reverse and --target")
    if config.data == "dates":
        if config.units == "words" or config.min_count:
            raise CourseError("--data dates is read by characters, and knows all of them; leave out --units and --min-count")
        return _dates(config.seed)
    return load_summaries() if config.data == "summaries" else bodies.load_bodies()


def _dates(seed: int) -> ParallelCorpus:
    """The pairs of the first pass, those held out, and no test: that is ``dates.held_out``."""
    train, validation = (
        Pairs(*map(tuple, dates.draw(np.random.default_rng(rng), n, part, REFUSED)[:2]))
        for rng, n, part in (([seed, 0], DATES_A_PASS, "train"), ([1], DATES_VALIDATED, "validation"))
    )
    return ParallelCorpus("dates", train, validation, Pairs((), ()), dates.sha256())


def score(found: Translator, config: Config, split: str) -> dict[str, Any]:
    """How well a translator does on a part of the pairs: true perplexity, and greedy translations against the references.

    Args:     config: data, target and reverse say which pairs. split: "train", "validation" or "test".
    Returns:  nats per token, perplexity, tokens, exact_match; bleu but for summaries; token_f1 for them and bodies.
    """
    if config.data == "dates":
        rows = dates.held_out(split, DATES_SCORED)
        part, sha256 = Pairs(*(tuple(row[k] for row in rows) for k in (0, 1))), dates.sha256()
    else:
        corpus = load_corpus(config)
        part, sha256 = getattr(corpus, split), corpus.sha256
    model = found.model()
    nats, tokens = evaluate(model, encode(part, found.source, found.target))
    written = [best.text for best in translate(found, part.source, model=model)]
    result = {"nats": nats / tokens, "perplexity": metrics.perplexity(nats / tokens), "tokens": tokens, "pairs": len(written)}
    result |= measures(config.data, written, part.target, found.target)
    return result | {"data": config.data, "split": split, "data_sha256": sha256}


def measured_by(data: str) -> list[str]:
    """The measures that say something of these data: one word has no BLEU, and a date is right or wrong."""
    none = {"dates": {"bleu", "token_f1"}, "summaries": {"bleu"}, "bodies": set()}.get(data, {"token_f1"})
    return [name for name in MEASURES["translate"] if name not in none]


def measures(data: str, written: Sequence[str], targets: Sequence[str], units: UnitTokenizer) -> dict[str, Any]:
    """Exact match, token F1, BLEU with its signature: those of ``measured_by``, of translations against their references."""
    references, known = [units.join(units.split(text)) for text in targets], measured_by(data)
    result: dict[str, Any] = {"exact_match": metrics.exact_match(written, references)}
    if "token_f1" in known:
        result["token_f1"] = (bodies.word_f1 if data == "bodies" else metrics.token_f1)(written, references)
    if "bleu" in known:
        measure = metrics.bleu(written, targets, lowercase=True)
        result |= {"bleu": measure.score, "signature": measure.signature}
    return result
