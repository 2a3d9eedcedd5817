"""Laws of attention, Seq2Seq and its use, in double precision: functions of a case of ``test_laws``, as in ``torch_laws``.

A kind is an attention and the way the encoder reads: "additive both". Expectations do not come from the code that is judged:
the logits are from torch.nn.LSTM and loops, the gradients from differences, the best translations from all there are.
"""

from __future__ import annotations

import re
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from problems import assert_close
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch_laws import replaced

from course_lib import decoding, translation
from course_lib.attention import Attention
from course_lib.errors import CourseError
from course_lib.pairs import Pairs
from course_lib.seq2seq import BOS, EOS, PAD, UNK, Seq2Seq, make_step, shifted, token_loss
from course_lib.shapes import ShapeError
from course_lib.torch_lstm import to_torch_lstm
from course_lib.torch_tokens import columns
from course_lib.translator import Translator
from course_lib.trees import leaves, map_tree
from course_lib.units import UnitTokenizer

EXACT = 1e-12
TARGETS = 7  # V of the target: three words beside the special tokens


class Task(NamedTuple):
    """A model with random weights, none of them zero, and some pairs."""

    model: Seq2Seq
    source: Tensor  # (S, N), with tokens that nobody may read behind the ends
    lengths: Tensor
    targets: Tensor  # (T, N)
    pairs: translation.Encoded  # the same, one by one


def randomised(model: nn.Module, seed: int, size: float = 0.7) -> Any:
    """The module in double precision, all its parameters normal."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        nn.init.normal_(parameter, 0, size, generator)
    return model.eval()


def task(case: Any, **changes: Any) -> Task:
    """Two layers, or one with an odd seed."""
    attention, way = case.kind.split()
    rng = case.rng
    config = {"source_size": 5 + case.D, "target_size": TARGETS, "embedding_size": 1 + case.D, "hidden_size": 2 * case.H}
    config |= {"num_layers": 2 - case.seed % 2, "attention": attention, "bidirectional": way == "both"}
    model = randomised(Seq2Seq(**config | changes), case.seed)
    lengths = rng.integers(1, case.T + 1, case.N) if case.lengths is None else np.maximum(case.lengths, 1)
    source = rng.integers(UNK, 5 + case.D, (case.T, case.N))
    targets = [np.append(rng.integers(UNK, TARGETS, n), EOS) for n in rng.integers(1, 4, case.N)]
    pairs = translation.Encoded([column[:n] for column, n in zip(source.T, lengths, strict=True)], targets)
    return Task(model, torch.tensor(source), torch.tensor(lengths), columns(targets)[0], pairs)


def near(got: Any, expected: Any, tolerance: float = EXACT) -> None:
    """Trees of tensors or arrays."""
    assert_close(*(map_tree(lambda t: t.detach().numpy() if isinstance(t, Tensor) else t, tree) for tree in (got, expected)),
                 tolerance)  # fmt: skip


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter; none of them may be without."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def single(t: Task, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """(source, lengths, targets) of one pair without padding."""
    source, target = (torch.tensor(side[n].astype(np.int64))[:, None] for side in t.pairs)
    return source, t.lengths[n : n + 1], target


def log_probs_of(logits: Tensor) -> Tensor:
    """What may be written is all but padding and BOS: the logits of the others, normalised."""
    out = torch.full_like(logits, -np.inf)
    out[..., EOS:] = logits[..., EOS:] - logits[..., EOS:].exp().sum(-1, keepdim=True).log()
    return out


# Attention


def attention_of_a_stream(attention: Attention, query: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Context and alpha by eqs. 10.1 to 10.4, position by position."""
    W = {name: parameter.detach().numpy() for name, parameter in attention.named_parameters()}
    if attention.score == "additive":
        scores = [W["v"] @ np.tanh(W["W_q"] @ query + W["W_k"] @ m) for m in states]
    else:
        scores = [query @ W["W_k"] @ m for m in states]
    alpha = np.array([1 / sum(np.exp(other - score) for other in scores) for score in scores])
    return alpha @ states, alpha


def torch_attention_follows_its_equations(case: Any) -> None:
    """With padding of random states, of which NaN is the worst; its gradients are the slopes."""
    rng, score = case.rng, case.kind.split()[0]
    T, N, S, Q, M = 1 + case.seed % 3, case.N, case.T, case.D, case.H
    attention = randomised(Attention(Q, M, score, Q + M if score == "additive" else None), case.seed)
    lengths = rng.integers(1, S + 1, N)
    query, states = torch.tensor(rng.normal(size=(T, N, Q))), torch.tensor(rng.normal(size=(S, N, M)))
    mask = torch.tensor(np.arange(S)[:, None] < lengths)
    memory = attention.memory(states, mask)
    context, alpha = attention(query, memory)
    assert context.shape == (T, N, M)
    assert alpha.shape == (T, N, S)
    for t, n in product(range(T), range(N)):
        expected = attention_of_a_stream(attention, query[t, n].numpy(), states[: lengths[n], n].numpy())
        near((context[t, n], alpha[t, n, : lengths[n]]), expected)
        assert not alpha[t, n, lengths[n] :].any()
    assert torch.allclose(alpha.sum(2), torch.ones(T, N, dtype=torch.float64), rtol=0, atol=1e-14)
    assert memory.keys.shape == (N, S, attention.W_k.shape[0])
    assert torch.equal(memory.values, states.transpose(0, 1))
    assert torch.equal(memory.mask, mask.T)
    above = torch.tensor(rng.normal(size=(T, N, M)))
    slopes_are_gradients(attention, lambda: (attention(query, attention.memory(states, mask))[0] * above).sum(), rng)


def slopes_are_gradients(module: nn.Module, loss: Any, rng: np.random.Generator, tolerance: float = 1e-7) -> None:
    """Along a random direction, in which every parameter moves."""
    grads, eps, found = gradients(module, loss()), 1e-5, []
    directions = {name: torch.tensor(rng.normal(size=tuple(p.shape))) for name, p in module.named_parameters()}
    with torch.no_grad():
        for step in (eps, -2 * eps, eps):
            for name, parameter in module.named_parameters():
                parameter += step * directions[name]
            found.append(loss().item())
    slope = (found[0] - found[1]) / (2 * eps)
    expected = sum((grads[name] * direction).sum().item() for name, direction in directions.items())
    assert abs(slope - expected) <= tolerance * max(1, abs(slope))


def a_new_attention_is_as_described(case: Any) -> None:
    torch.manual_seed(case.seed)
    for score in ("additive", "multiplicative"):
        attention = Attention(50, 200, score)
        assert attention.score == score
        sizes = {"W_k": (50, 200)} | ({"W_q": (50, 50), "v": (50,)} if score == "additive" else {})
        found = dict(attention.named_parameters())
        assert {name: tuple(parameter.shape) for name, parameter in found.items()} == sizes
        for name, parameter in found.items():
            bound = sizes[name][-1] ** -0.5
            assert (0.98 if parameter.numel() > 99 else 0.8) * bound < parameter.abs().max() <= bound
            assert abs(parameter.mean()) < 0.3 * bound
    assert Attention(5, 3).score == "additive"
    assert Attention(5, 3, size=7).v.shape == (7,)
    assert Attention(5, 3, "multiplicative", 5).W_k.shape == (5, 3)
    for start, arguments in {
        "score: expected one of additive, multiplicative, got 'dot'": (5, 3, "dot"),
        "size: expected 5, the query's size, for a multiplicative score, got 3": (5, 3, "multiplicative", 3),
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(start)}$"):
            Attention(*arguments)


# The model


def by_nn_lstm(t: Task, inputs: Tensor) -> tuple:
    """(logits, state's layers, alpha) from torch.nn.LSTM, loops over streams and steps, and plain products."""
    model, config = t.model, t.model.config
    encoder, decoder = to_torch_lstm(model.encoder), to_torch_lstm(model.decoder)
    packed = pack_padded_sequence(model.source_embedding.weight[t.source], t.lengths, enforce_sorted=False)
    out, (h, c) = encoder(packed)
    states = pad_packed_sequence(out, total_length=len(t.source))[0].detach().numpy()
    if config["bidirectional"]:
        h, c = (torch.stack([torch.cat([part[k], part[k + 1]], 1) for k in range(0, len(part), 2)]) for part in (h, c))
    E = model.target_embedding.weight
    hs, final = decoder(E[inputs], (h, c))
    logits, alphas = [], np.zeros((*inputs.shape, len(t.source) if model.attention else 1))
    for k, n in product(range(len(inputs)), range(inputs.shape[1])):
        real = states[: t.lengths[n], n]
        if model.attention is None:
            context, alpha = h[-1, n], np.ones(1)
        else:
            context, alpha = attention_of_a_stream(model.attention, hs[k, n].detach().numpy(), real)
        alphas[k, n, : len(alpha)] = alpha
        read = torch.cat([hs[k, n], torch.as_tensor(context)])
        logits.append(E @ torch.tanh(model.combine.weight @ read + model.combine.bias) + model.bias)
    return torch.stack(logits).view(*inputs.shape, -1), tuple(zip(*final, strict=True)), alphas


def a_translator_is_its_equations(case: Any) -> None:
    t = task(case)
    inputs = shifted(t.targets)
    logits, state, alpha = t.model.decode(inputs, t.model.encode(t.source, t.lengths))
    expected = by_nn_lstm(t, inputs)
    near((logits, tuple(map(tuple, state.layers)), alpha), expected)
    near(t.model(t.source, t.lengths, inputs), expected[0])


def its_gradients_are_slopes(case: Any) -> None:
    t = task(case)
    slopes_are_gradients(t.model, lambda: token_loss(t.model(t.source, t.lengths, shifted(t.targets)), t.targets), case.rng)


def padding_of_pairs_changes_nothing(case: Any) -> None:
    """Rows of other tokens behind every source, and of padding behind every target."""
    t, rng = task(case), case.rng
    more = torch.tensor(rng.integers(0, 5 + case.D, (2, case.N)))
    real = torch.arange(case.T)[:, None] < t.lengths
    source = torch.cat([torch.where(real, t.source, 3 + (t.source - 2) % (2 + case.D)), more])
    targets = torch.cat([t.targets, torch.full((3, case.N), PAD)])
    found = []
    for x, y in ((t.source, t.targets), (source, targets)):
        state = t.model.encode(x, t.lengths)
        logits, after, alpha = t.model.decode(shifted(y)[: len(t.targets)], state)
        loss = token_loss(t.model(x, t.lengths, shifted(y)), y)
        width = case.T if t.model.attention else 1
        assert not alpha[:, :, width:].any()
        assert (alpha.sum(2) - 1).abs().max() < 1e-14
        assert not alpha.transpose(0, 1).transpose(1, 2)[~state.memory.mask].any()
        found.append((logits, loss, state.layers, after.layers, alpha[:, :, :width], gradients(t.model, loss)))
    near(found[1], found[0])


def a_batch_is_its_singles(case: Any) -> None:
    t = task(case)
    logits, state, alpha = t.model.decode(shifted(t.targets), t.model.encode(t.source, t.lengths))
    losses = []
    for n in range(case.N):
        source, lengths, target = single(t, n)
        T, width = len(target), len(source) if t.model.attention else 1
        begin = t.model.encode(source, lengths)
        alone, _, attended = t.model.decode(shifted(target), begin)
        near((logits[:T, n], alpha[:T, n, :width]), (alone[:, 0], attended[:, 0]))
        mine = map_tree(lambda leaf, n=n: leaf[n], t.model.encode(t.source, t.lengths).layers)
        near(mine, map_tree(lambda leaf: leaf[0], begin.layers))
        losses.append(token_loss(alone, target) * T)
    near(token_loss(logits, t.targets), sum(losses) / (t.targets != PAD).sum())
    assert {leaf.shape[0] for leaf in leaves(state)} == {case.N}, "the stream is on axis 0"


def decoding_can_stop_and_go_on(case: Any) -> None:
    """One call, step by step with the state carried, and the whole beginning read again: the same."""
    t = task(case)
    inputs = torch.tensor(case.rng.integers(0, TARGETS, (4, case.N)))
    begin = t.model.encode(t.source, t.lengths)
    whole, after, alpha = t.model.decode(inputs, begin)
    state, steps = begin, []
    for row in inputs:
        logits, state, attended = t.model.decode(row[None], state)
        steps.append((logits[0], attended[0]))
    near(tuple(map(torch.stack, zip(*steps, strict=True))), (whole, alpha))
    near(state.layers, after.layers)
    near(state.memory[:2], begin.memory[:2])
    for k in range(1, 4):
        logits, middle, _ = t.model.decode(inputs[:k], begin)
        near(logits, whole[:k])
        near(t.model.decode(inputs[k:], middle)[0], whole[k:])


def the_loss_is_a_mean_over_real_tokens(case: Any) -> None:
    """With and without smoothing, in NumPy, token by token; and inputs are what stands before them."""
    t = task(case)
    logits = torch.tensor(case.rng.normal(size=(*t.targets.shape, TARGETS)) * 3)
    for smoothing in (0.0, 0.3):
        losses = []
        for row, tokens in zip(logits.numpy(), t.targets.numpy(), strict=True):
            for a, token in zip(row, tokens, strict=True):
                if token != PAD:
                    log_p = a - np.log(np.exp(a).sum())
                    losses.append(-(1 - smoothing) * log_p[token] - smoothing * log_p.mean())
        near(token_loss(logits, t.targets, smoothing), np.array(sum(losses) / len(losses)))
    assert len(losses) == sum(len(target) for target in t.pairs.target)
    inputs = shifted(t.targets)
    for n, target in enumerate(t.pairs.target):
        assert inputs[: len(target), n].tolist() == [BOS, *target[:-1]]
    assert inputs.dtype == t.targets.dtype


def a_model_is_fed_as_asked(case: Any) -> None:
    """teacher_forcing 1: the truth; 0: its own most probable tokens; between: a mixture, drawn for each stream and step."""
    t = task(case)
    inputs = torch.cat([torch.full((1, case.N), BOS), torch.tensor(case.rng.integers(0, TARGETS, (3, case.N)))])
    state, fed, steps = t.model.encode(t.source, t.lengths), inputs[:1], []
    for _ in range(4):
        logits, state, _ = t.model.decode(fed[-1:], state)
        steps.append(logits)
        fed = torch.cat([fed, logits.argmax(2)])
    own = t.model(t.source, t.lengths, inputs, 0.0)
    near(own, torch.cat(steps))
    near(t.model(t.source, t.lengths, inputs, 1.0), t.model.decode(inputs, t.model.encode(t.source, t.lengths))[0])
    above = torch.tensor(case.rng.normal(size=tuple(own.shape)))
    by_own = gradients(t.model, (own * above).sum())
    near(by_own, gradients(t.model, (t.model(t.source, t.lengths, fed[:4]) * above).sum()))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^teacher_forcing: expected a probability, got "):
            t.model(t.source, t.lengths, inputs, wrong)

    many, seen = 300, []
    columns_ = torch.arange(many) % case.N
    source, lengths, true = t.source[:, columns_], t.lengths[columns_], inputs[:, columns_]
    torch.manual_seed(case.seed)
    with t.model.target_embedding.register_forward_hook(lambda _, arguments, __: seen.append(arguments[0])):
        logits = t.model(source, lengths, true, 0.3)
    seen = torch.cat(seen)
    assert torch.equal(seen[0], true[0])
    guesses = logits[:-1].argmax(2)
    assert ((seen[1:] == true[1:]) | (seen[1:] == guesses)).all()
    differ = guesses != true[1:]
    for k in range(3):
        if (count := int(differ[k].sum())) >= 50:
            share = (seen[k + 1] == true[k + 1])[differ[k]].double().mean().item()
            assert abs(share - 0.3) < 4.5 * (0.21 / count) ** 0.5
    near(logits, t.model(source, lengths, seen))


# Decoding


def rolled_out(t: Task, n: int, length: int) -> list[int]:
    """The most probable tokens of one stream, the whole beginning read again at each step, up to the end token."""
    source, lengths, _ = single(t, n)
    tokens = [BOS]
    while len(tokens) <= length and tokens[-1] != EOS:
        logits = t.model(source, lengths, torch.tensor(tokens)[:, None])[-1, 0]
        tokens.append(EOS + int(logits[EOS:].argmax()))
    return tokens[1:]


def everything(t: Task, n: int, length: int) -> list[tuple[list[int], float]]:
    """All that may be written for a stream in so many tokens, with the log-probability by teacher forcing."""
    source, lengths, _ = single(t, n)
    found = []
    for T in range(1, length + 1):
        for tokens in product(range(EOS, TARGETS), repeat=T):
            if EOS not in tokens[:-1] and (T == length or tokens[-1] == EOS):
                found.append(list(tokens))
    padded, _ = columns([np.array(tokens) for tokens in found])
    count = len(found)
    logits = t.model(source.expand(-1, count), lengths.expand(count), shifted(padded))
    each = log_probs_of(logits).gather(2, padded[..., None])[..., 0].masked_fill(padded == PAD, 0)
    return list(zip(found, each.sum(0).tolist(), strict=True))


def a_translator_speaks_to_the_decoders(case: Any) -> None:
    t = task(case)
    t.model.train()
    step = make_step(t.model)
    assert not t.model.training, "no dropout"
    with torch.no_grad():
        begin = t.model.encode(t.source, t.lengths)
        token, state = np.full(case.N, BOS), begin
        inputs = token[None]
        for _ in range(3):
            log_probs, state = step(token, state)
            assert isinstance(log_probs, np.ndarray)
            assert (log_probs[:, :EOS] == -np.inf).all()
            near(log_probs[:, EOS:], log_probs_of(t.model(t.source, t.lengths, torch.tensor(inputs))[-1])[:, EOS:])
            assert np.allclose(np.exp(log_probs).sum(1), 1, rtol=0, atol=EXACT)
            token = case.rng.integers(EOS, TARGETS, case.N)
            inputs = np.concatenate([inputs, token[None]])
        greedy = decoding.greedy(step, begin, np.full(case.N, BOS), 4, EOS)
        drawn = decoding.sample(step, begin, np.full(case.N, BOS), 4, case.rng, [decoding.top_k(1)], EOS)
        assert np.array_equal(drawn, greedy)
        for n in range(case.N):
            tokens = rolled_out(t, n, 4)
            expected = (tokens + [EOS] * 4)[: len(greedy)]
            assert greedy[:, n].tolist() == expected
            first = map_tree(lambda leaf, n=n: leaf[n : n + 1], begin)
            assert decoding.beam_search(step, first, BOS, 4, 1, EOS)[0].tokens.tolist() == tokens


def beam_search_finds_the_best_translations(case: Any) -> None:
    """A wide beam finds all there are, in order; of a narrow one, the scores are those of teacher forcing."""
    t, length, penalty = task(case), 3, 0.8 * (case.seed % 2)
    step = make_step(t.model)
    with torch.no_grad():
        for n in range(min(case.N, 2)):
            source, lengths, _ = single(t, n)
            begin, known = t.model.encode(source, lengths), everything(t, n, length)
            expected = sorted(((total / len(tokens) ** penalty, tokens, total) for tokens, total in known), reverse=True)
            found = decoding.beam_search(step, begin, BOS, length, 100, EOS, penalty)
            assert [h.tokens.tolist() for h in found] == [tokens for _, tokens, _ in expected]
            assert len(found) == 85
            near(np.array([(h.score, h.log_prob) for h in found]), np.array([(a, b) for a, _, b in expected]))
            totals = {tuple(tokens): total for tokens, total in known}
            for h in decoding.beam_search(step, begin, BOS, length, 3, EOS, penalty):
                near(np.array(h.log_prob), np.array(totals[tuple(h.tokens.tolist())]))
                assert h.ended == (h.tokens[-1] == EOS)


# A module of its own


def a_new_translator_is_as_described(case: Any) -> None:
    attention, way = case.kind.split()
    torch.manual_seed(case.seed)
    H, E, L = 2 * case.H, 30, 1 + case.seed % 2
    model = Seq2Seq(300, 200, E, H, L, attention, way == "both")
    expected = {"source_size": 300, "target_size": 200, "embedding_size": E, "hidden_size": H, "num_layers": L}
    assert model.config == expected | {"attention": attention, "bidirectional": way == "both", "dropout": 0.0}
    assert all(a is b for a, b in zip(model.params().values(), model.parameters(), strict=True))
    for embedding in (model.source_embedding, model.target_embedding):
        assert abs(embedding.weight.std() * E**0.5 - 1) < 0.05
        assert abs(embedding.weight.mean()) < 0.02
    assert not model.bias.any()
    parts = ("encoder", "decoder", "attention")
    sizes = {"bias": (200,), "source_embedding.weight": (300, E), "target_embedding.weight": (200, E)}
    sizes |= {"combine.weight": (E, 2 * H), "combine.bias": (E,)}
    found = {name: tuple(parameter.shape) for name, parameter in model.params().items()}
    assert {name: size for name, size in found.items() if name.split(".")[0] not in parts} == sizes, (
        "one matrix embeds the target and writes it"
    )
    assert (model.encoder.hidden_size, model.encoder.bidirectional) == (H // 2 if way == "both" else H, way == "both")
    assert (model.decoder.hidden_size, model.decoder.bidirectional) == (H, False)
    assert model.encoder.num_layers == model.decoder.num_layers == L
    assert getattr(model.attention, "score", "none") == attention
    if model.attention:
        assert model.attention.W_k.shape == (H, H)
    assert Seq2Seq(5, 6).config["attention"] == "additive"


def translators_that_cannot_be_are_refused(case: Any) -> None:
    good = {"source_size": 9, "target_size": 8, "embedding_size": 3, "hidden_size": 4, "num_layers": 1}
    Seq2Seq(**good | {"hidden_size": 3, "bidirectional": False})
    Seq2Seq(**good | {"source_size": 4, "target_size": 4, "hidden_size": 2, "embedding_size": 1})
    for start, change in {
        "source_size: expected an integer of at least 4, got 3": {"source_size": 3},
        "target_size: expected an integer of at least 4, got 3": {"target_size": 3},
        "embedding_size: expected an integer of at least 1, got 0": {"embedding_size": 0},
        "hidden_size: expected an integer of at least 1, got 4.0": {"hidden_size": 4.0},
        "hidden_size: expected an even number with bidirectional=True, got 3": {"hidden_size": 3},
        "num_layers: expected an integer of at least 1, got 0": {"num_layers": 0},
        "attention: expected one of none, additive, multiplicative, got 'dot'": {"attention": "dot"},
        "dropout: expected a rate in [0, 1), got 1": {"dropout": 1},
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(start)}$"):
            Seq2Seq(**good | change)
    t = task(case)
    (S, N), V = t.source.shape, 5 + case.D
    for start, kind, arguments in (
        ("tokens: expected (T, N)", ShapeError, (t.source[0], t.lengths)),
        ("lengths: axis N should be", ShapeError, (t.source, torch.ones(N + 1, dtype=torch.int64))),
        (f"lengths: expected integers in [1, {S}]", ValueError, (t.source, t.lengths * 0)),
        (f"lengths: expected integers in [1, {S}]", ValueError, (t.source, t.lengths * 0 + S + 1)),
        (f"tokens: expected integers in [0, {V}), got {V}", ValueError, (t.source * 0 + V, t.lengths)),
        ("tokens: expected integers (T, N), got torch.float64", ValueError, (t.source.double(), t.lengths)),
    ):
        with pytest.raises(kind, match=f"^{re.escape(start)}"):
            t.model.encode(*arguments)


def a_translator_drops_out_in_training_only(case: Any) -> None:
    """Of both embeddings, before the output, and between layers, of which nn.Dropout knows nothing."""
    t = task(case, dropout=0.4)
    inputs, E = shifted(t.targets), 1 + case.D
    plain = task(case).model(t.source, t.lengths, inputs)
    near(t.model(t.source, t.lengths, inputs), plain)
    dropped = []
    t.model.train()
    with t.model.dropout.register_forward_hook(lambda _, arguments, __: dropped.append(tuple(arguments[0].shape))):
        t.model(t.source, t.lengths, inputs)
    assert dropped == [(*t.source.shape, E), (*inputs.shape, E), (*inputs.shape, E)]
    assert t.model.dropout.p == 0.4
    assert t.model.encoder.dropout == t.model.decoder.dropout == (0.4 if t.model.config["num_layers"] > 1 else 0)
    assert not torch.equal(t.model(t.source, t.lengths, inputs), plain)
    near(make_step(t.model)(inputs[0], t.model.encode(t.source, t.lengths))[0][:, EOS:], log_probs_of(plain[0])[:, EOS:])


def logits_are_wide(case: Any) -> None:
    t = task(case)
    t.model.float()
    inputs = shifted(t.targets)
    expected = t.model(t.source, t.lengths, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        logits = t.model(t.source, t.lengths, inputs)
        assert logits.dtype == torch.float32
        assert t.model(t.source, t.lengths, inputs, 0.5).dtype == torch.float32
    assert (logits - expected).abs().max() < 0.3 * expected.abs().max()


# In use


SOURCE = UnitTokenizer("words", tuple("abcdefgh"), lowercase=True)


def translator_of(t: Task, longest: int) -> Translator:
    """Its source has words of one letter, its target x, y and z."""
    source = UnitTokenizer("words", SOURCE.tokens[: t.model.config["source_size"] - 4])
    target = UnitTokenizer("words", tuple("xyz"))
    config = {"model": t.model.config, "longest": [int(t.lengths.max()), longest], "prepare": "sentences"}
    return Translator({}, source, target, config, {}, {})


def texts_of(t: Task) -> list[str]:
    """The sources in words; what the vocabulary lacks is q1, q2 ..."""
    words = lambda tokens: (f"q{k}" if token == UNK else SOURCE.tokens[token - 4] for k, token in enumerate(tokens))  # noqa: E731
    return [" ".join(words(tokens)) for tokens in t.pairs.source]


def in_words(t: Task, n: int, tokens: list[int], text: str) -> str:
    """Unknown words are what attention looked at most."""
    source, lengths, _ = single(t, n)
    inputs = torch.tensor([BOS, *tokens[:-1]])[:, None]
    alpha = t.model.decode(inputs, t.model.encode(source, lengths))[2][:, 0]
    units = SOURCE.split(text)
    words = []
    for token, row in zip(tokens, alpha.tolist(), strict=True):
        if token == UNK:
            words.append(units[row.index(max(row))] if t.model.attention else "<unk>")
        elif token != EOS:
            words.append("xyz"[token - 4])
    return " ".join(words)


def translations_are_those_of_the_model(case: Any) -> None:
    """Many at a time, in the order of the texts, as each alone; beams best first; scores by teacher forcing."""
    t, length = task(case), 3
    randomised(t.model, case.seed, 1.5)  # so that most texts are several words and end
    translator, texts, penalty = translator_of(t, length), texts_of(t), 0.5 * (1 + case.seed % 2)
    with torch.no_grad(), replaced((translation, "AT_ONCE", 2)):
        found = translation.translate(translator, texts, length_penalty=penalty, model=t.model)
        for n, (text, got) in enumerate(zip(texts, found, strict=True)):
            tokens, totals = rolled_out(t, n, length), {tuple(a): b for a, b in everything(t, n, length)}
            total = totals[tuple(tokens)]
            assert got.tokens.tolist() == tokens
            assert got.text == in_words(t, n, tokens, text)
            near(np.array([got.log_prob, got.score]), np.array([total, total / len(tokens) ** penalty]))
            assert got.ended == (tokens[-1] == EOS)
            if n < 2:
                best = translation.candidates(translator, text, 100, penalty, 20, t.model)
                expected = sorted(totals, key=lambda a, totals=totals: -totals[a] / len(a) ** penalty)[:20]
                assert [tuple(h.tokens.tolist()) for h in best] == expected
                assert [h.text for h in best] == [in_words(t, n, list(a), text) for a in expected]
                near(np.array([h.log_prob for h in best]), np.array([totals[a] for a in expected]))
                near(np.array([h.score for h in best]), np.array([totals[a] / len(a) ** penalty for a in expected]))
                (one,) = translation.translate(translator, [text], 100, penalty, t.model)
                assert one.text == best[0].text
                near(np.array(one.score), np.array(best[0].score))
                alpha = translation.alignment(t.model, t.pairs.source[n], t.pairs.target[n])
                whole = t.model.decode(shifted(t.targets), t.model.encode(t.source, t.lengths))[2]
                near(alpha, whole[: len(t.pairs.target[n]), n, : alpha.shape[1]].numpy())


def texts_without_a_translation_are_refused(case: Any) -> None:
    t = task(case)
    translator, longest = translator_of(t, 3), int(t.lengths.max())
    t.model.eval()
    assert len(translation.translate(translator, ["a " * 2 * longest], model=t.model)) == 1
    for text, start in {
        " ": "the text to translate is empty; give at least one character",
        "a " * (2 * longest + 1): f"the text has {2 * longest + 1} words and the model learned from at most {longest}; transl",
    }.items():
        for width in (1, 2):
            with pytest.raises(CourseError, match=f"^{re.escape(start)}"):
                translation.translate(translator, ["a", text], width, model=t.model)
    assert translation.translate(translator, [], model=t.model) == []
    good = Pairs(("a b", "B"), ("x", "z y"))
    source, target = translation.encode(good, translator.source, translator.target)
    assert [s.tolist() for s in source] == [[4, 5], [3]]
    assert [s.tolist() for s in target] == [[4, EOS], [6, 5, EOS]]
    for pair, shown in ((("", "x"), "'' | 'x'"), (("a", " "), "'a' | ' '")):
        bad = Pairs((*good.source, pair[0]), (*good.target, pair[1]))
        with pytest.raises(CourseError, match=re.escape(f"pair 3 has an empty side ({shown}); take it out")):
            translation.encode(bad, translator.source, translator.target)


def rare_words_keep_their_numbers(case: Any) -> None:
    """The k-th word of a source that the vocabulary lacks is <unkk>, on both sides and on the way back; there are 8 numbers."""
    numbers = tuple(f"<unk{k}>" for k in range(1, 9))
    units, plain = UnitTokenizer("words", (*"abc", *numbers)), UnitTokenizer("words", tuple("abcxyz"))
    words, rng = [*"abc", *(f"r{k}" for k in range(11))], case.rng
    texts = [[" ".join(rng.choice(words, n)) for n in rng.integers(1, 30, 6)] for _ in range(2)]
    texts[0][0], texts[1][0] = " ".join(words), " ".join(words[::-1])
    found = translation.encode(Pairs(*map(tuple, texts)), units, units)
    for source, target, ids, translated in zip(*texts, *found, strict=True):
        rare = [word for word in dict.fromkeys(source.split()) if word not in "abc"][:8]
        names = dict(zip(rare, numbers, strict=False)) | {word: word for word in "abc"}
        for text, got in ((source, ids.tolist()), (target, translated.tolist()[:-1])):
            vocabulary = units.vocabulary.ids
            assert got == [vocabulary.get(names.get(word, ""), UNK) for word in text.split()]
    assert translation.encode(Pairs(("a r0",), ("r0 a",)), plain, plain).source[0].tolist() == [4, UNK]

    model = randomised(Seq2Seq(units.size, units.size, 4, 4, attention="multiplicative"), case.seed)
    translator = Translator({}, units, units, {"model": model.config, "longest": [9, 2], "prepare": "sentences"}, {}, {})
    with torch.no_grad():
        model.bias[units.vocabulary.ids["<unk2>"]] = 99
    got = translation.translate(translator, ["r7 a r3 r7", "r5 r5 b"], model=model)
    assert [t.text for t in got] == ["r3 r3", "<unk2> <unk2>"]


def perplexity_is_of_the_true_text(case: Any) -> None:
    """Each token predicted from the true ones before it, in any batches, without dropout; the model stays in its mode."""
    t = task(case, dropout=0.3)
    total = 0.0
    with torch.no_grad():
        for n in range(case.N):
            source, lengths, target = single(t, n)
            logits = t.model(source, lengths, torch.tensor([BOS, *target[:-1, 0].tolist()])[:, None])[:, 0].numpy()
            for a, token in zip(logits, target[:, 0].tolist(), strict=True):
                total += np.log(np.exp(a).sum()) - a[token]
    for training, at_once in ((True, 2), (False, 256)):
        t.model.train(training)
        with replaced((translation, "AT_ONCE", at_once)):
            nats, count = translation.evaluate(t.model, t.pairs)
        assert t.model.training == training
        assert count == sum(map(len, t.pairs.target))
        near(np.array(nats), np.array(total))


def each_pass_deals_all_pairs_once(case: Any) -> None:
    rng = case.rng
    lengths = rng.integers(1, 9, 50)
    sides = ([np.full(n, 4 + k) for k, n in enumerate(lengths)], [np.full(n % 3 + 1, 60 + k) for k, n in enumerate(lengths)])
    data = translation.Encoded(*sides)
    size, seen, padding = 1 + case.T, [], 0
    for source, targets in translation.batches(data, size, rng):
        assert source.tokens.shape[1] == len(source.lengths) == targets.shape[1] <= size
        assert len(source.tokens) == source.lengths.max()
        padding += (source.tokens == PAD).sum().item()
        for n in range(targets.shape[1]):
            k = int(source.tokens[0, n]) - 4
            assert targets[targets[:, n] != PAD, n].tolist() == data.target[k].tolist()
            assert source.tokens[: source.lengths[n], n].tolist() == data.source[k].tolist()
            seen.append(k)
    assert sorted(seen) == list(range(50))
    totals = lengths + lengths % 3 + 1
    assert seen != sorted(seen, key=lambda k: totals[k]), "short batches are not always first"
    again = [source.tokens[0].tolist() for source, _ in translation.batches(data, size, rng)]
    assert [k + 4 for k in seen] != [k for row in again for k in row]
    if size > 1:  # equal lengths, so that sorting leaves the order they were dealt in
        same = translation.Encoded([np.full(2, 4 + k) for k in range(50)], [np.full(2, 60)] * 50)
        deals = [{frozenset(source.tokens[0].tolist()) for source, _ in translation.batches(same, size, rng)} for _ in range(2)]
        assert deals[0] != deals[1]
    assert padding <= 0.5 * size * 50
    assert len(list(translation.batches(data, size, rng))) == -(-50 // size)
