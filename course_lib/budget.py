"""What a training run is asked to do, and where it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass

EVALUATIONS = 5
MEASURES = {  # of the held-out part, by which each task can choose its best weights
    "language": ("nats",),
    "translate": ("nats", "exact_match", "token_f1", "bleu"),
    "classify": ("nats", "accuracy"),
}
LARGEST = 1 << 16  # hidden units, or entries of an embedding: one more digit is a slip of the finger


@dataclass(frozen=True)
class Config:
    """What a run is asked to do. Its budget is ``minutes`` of wall clock, or ``steps`` when given: then runs repeat exactly.

    Raises:   ValueError: naming the field, what was expected and what came.
    """

    data: str
    start: str | None = None  # a checkpoint whose weights, sizes and vocabulary the run begins with
    cell: str = "lstm"
    hidden: int = 256
    layers: int = 1
    embedding: int = 64
    batch_size: int = 32
    window: int = 64  # steps of truncated back-propagation, T
    lr: float | None = None  # None: by the budget, see peak_lr
    dropout: float = 0.0
    input_dropout: float | None = None  # rate on the embedding; None: as dropout
    held_masks: bool = False  # dropout masks held over the time steps of a window
    recurrent_dropout: float = 0.0  # rate on the entries of W_hh
    tie: bool = False  # the linear layer's weights are the embedding
    weight_decay: float = 0.0  # of AdamW, on matrices
    average: float = 0.0  # decay of the running mean of the weights, which is then what is judged and kept as the best
    patience: int | None = None  # evaluations without a better one before the run stops
    best_by: str = "nats"  # the measure whose best weights are kept; see MEASURES
    evaluations: int | None = None  # in a run, spread evenly over its budget; None: 5, fewer in less than two minutes
    clip: float = 1.0
    minutes: float = 2.0
    steps: int | None = None
    seed: int = 0
    engine: str = "numpy"
    device: str = "auto"  # auto: a GPU if there is one
    precision: str = "fp32"
    accumulate: int = 1  # parts that the streams of a batch are taken in, one after the other, to save memory
    task: str = "language"  # or classify, or translate: the fields below are of this task
    target: str | None = None  # the file of translations, beside a file of sentences in data
    reverse: bool = False  # translate the other way
    attention: str = "additive"
    units: str | None = None  # characters or words; None: by the data
    min_count: int | None = None  # a rarer unit is unknown; None: 2 for words, 1 for characters
    copy: bool = False  # number the rare words of a source, so that they can be copied
    teacher_forcing: float = 1.0
    smoothing: float = 0.0  # of the labels

    def __post_init__(self) -> None:
        measures = MEASURES.get(self.task, ("nats",))
        for name, good, expected in (
            ("cell", self.cell in ("rnn", "lstm", "gru"), "rnn, lstm or gru"),
            ("hidden", 1 <= self.hidden <= LARGEST, f"1 to {LARGEST}"),
            ("layers", 1 <= self.layers <= 100, "1 to 100"),
            ("embedding", 1 <= self.embedding <= LARGEST, f"1 to {LARGEST}"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("window", self.window >= 1, "at least 1"),
            ("lr", self.lr is None or 0 < self.lr < math.inf, "a positive number"),
            ("dropout", 0 <= self.dropout < 1, "a number in [0, 1)"),
            ("input_dropout", self.input_dropout is None or 0 <= self.input_dropout < 1, "a number in [0, 1)"),
            ("input_dropout", self.input_dropout is None or self._torch_lstm(), "it with --cell lstm and --engine torch only"),
            ("start", self.start is None or self.task == "language", f"nothing with --task {self.task}"),
            ("recurrent_dropout", 0 <= self.recurrent_dropout < 1, "a number in [0, 1)"),
            ("held_masks", not self.held_masks or self._torch_lstm(), "them with --cell lstm and --engine torch only"),
            ("recurrent_dropout", not self.recurrent_dropout or self._torch_lstm(), "0 but for --cell lstm, --engine torch"),
            ("tie", not self.tie or (self.engine == "torch" and self.task == "language"), "it with --engine torch only"),
            ("tie", not self.tie or self.embedding == self.hidden, f"it with --embedding {self.hidden}, as --hidden, only"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "a number of at least 0"),
            ("average", 0 <= self.average < 1, "a number in [0, 1)"),
            ("patience", self.patience is None or self.patience >= 1, "at least 1"),
            ("evaluations", self.evaluations is None or 1 <= self.evaluations <= 10_000, "1 to 10000"),
            ("clip", self.clip > 0, "a positive number"),
            ("minutes", 0 < self.minutes < 1e6, "a positive number below a million"),
            ("steps", self.steps is None or self.steps >= 1, "at least 1"),
            ("seed", self.seed >= 0, "at least 0"),
            ("engine", self.engine in ("numpy", "torch"), "numpy or torch"),
            ("device", self.device in ("auto", "cpu") or self.engine == "torch", "auto or cpu with --engine numpy"),
            ("precision", self.precision in ("fp32", "bf16"), "fp32 or bf16"),
            ("precision", self.precision == "fp32" or self.engine == "torch", "fp32 with --engine numpy"),
            ("accumulate", 1 <= self.accumulate <= self.batch_size, "1 to --batch-size"),
            ("task", self.task in MEASURES, "language, translate or classify"),
            ("best_by", self.best_by in measures, f"{' or '.join(measures)} with --task {self.task}"),
            ("engine", self.task == "language" or self.engine == "torch", f"torch with --task {self.task}"),
            ("target", self.target is None or self.task == "translate", "nothing without --task translate"),
            ("attention", self.attention in ("none", "additive", "multiplicative"), "none, additive or multiplicative"),
            ("units", self.units in (None, "characters", "words"), "characters or words"),
            ("hidden", self.task != "translate" or self.hidden % 2 == 0, "an even number with --task translate"),
            ("copy", not self.copy or (self.units != "characters" and self.data != "dates"), "nothing with characters"),
            ("min_count", self.min_count is None or self.min_count >= 1, "at least 1"),
            ("teacher_forcing", 0 <= self.teacher_forcing <= 1, "a number in [0, 1]"),
            ("smoothing", 0 <= self.smoothing < 1, "a number in [0, 1)"),
            ("accumulate", self.accumulate == 1 or self.engine == "torch", "1 with --engine numpy"),
        ):
            if not good:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)}")

    def _torch_lstm(self) -> bool:
        return self.engine == "torch" and self.cell == "lstm" and self.task == "language"

    def looks(self) -> int:
        """How often the run looks at the held-out text."""
        if self.evaluations:
            return self.evaluations
        return EVALUATIONS if self.steps else max(1, min(EVALUATIONS, int(2.5 * self.minutes)))

    def peak_lr(self) -> float:
        """The highest learning rate of the run: a short run cannot afford small steps, a long one profits from them.

        In half a minute on tiny Shakespeare (H = 256), 3e-3, 8e-3 and 1.5e-2 reached 1.84, 1.68 and 1.63 held-out nats; the
        fall with the root of the budget is the usual rule, not measured here.
        """
        if self.lr is not None:
            return self.lr
        minutes = self.steps / 2000 if self.steps else self.minutes
        return min(2e-2, max(1.5e-3, 1.1e-2 / math.sqrt(minutes)))


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0  # or texts, of a classifier
    batch: int = 0  # in the current pass over the data
    smooth: float = math.nan  # running mean of the training nats
    best: float = math.inf  # validation nats of the best weights
    score: float = 0.0  # their measure that best_by names, the higher the better; 0 if that is nats
    evaluated: int = 0  # evaluations done
    passes: int = 0  # over the data, finished
    stale: int = 0  # evaluations since the best one

    def fraction(self, config: Config) -> float:
        """The part of the budget that is used, in [0, 1]."""
        used = self.step / config.steps if config.steps else self.seconds / (60 * config.minutes)
        return min(1.0, used)
