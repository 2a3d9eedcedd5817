"""What a Seq2Seq model learns: to reverse, to look where the answer stands, to survive its own mistakes.

Its laws (equations, padding, batches, decoding, teacher forcing) are in ``translation_laws``.
"""

import numpy as np
import pytest
import torch
from problems import assert_close

from course_lib import decoding
from course_lib.seq2seq import BOS, EOS, PAD, Seq2Seq, make_step, shifted, token_loss
from course_lib.torch_tokens import columns
from course_lib.trees import map_tree

SYMBOLS, LONGEST = 6, 6


def strings(rng, n):
    """n random strings of 1 to 6 of 6 symbols: tokens 4 to 9."""
    return [rng.integers(4, 4 + SYMBOLS, rng.integers(1, LONGEST + 1)) for _ in range(n)]


def reversed_copy(attention, steps, seed=0, n=64, lr=1e-2, **changes):
    """A small model after some steps of learning to write strings backwards; nothing is drawn twice but by chance."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Seq2Seq(4 + SYMBOLS, 4 + SYMBOLS, 16, 48, 1, attention, **changes)
    adam = torch.optim.Adam(model.parameters(), lr)
    for step in range(steps):
        source = strings(rng, n)
        x, lengths = columns(source)
        y, _ = columns([np.append(s[::-1], EOS) for s in source])
        for group in adam.param_groups:
            group["lr"] = lr * (1 - step / steps)
        adam.zero_grad()
        token_loss(model(x, lengths, shifted(y)), y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
    return model.eval()


@pytest.fixture(scope="module")
def reverser():
    return reversed_copy("multiplicative", 300)


@torch.no_grad()
def written(model, source):
    """What greedy decoding writes for each source, up to the end token."""
    found = decoding.greedy(make_step(model), model.encode(*columns(source)), np.full(len(source), BOS), LONGEST + 2, EOS)
    return [column[: list(column).index(EOS)].tolist() if EOS in column else None for column in found.T]


def held_out(n=400):
    return strings(np.random.default_rng(99), n)


def test_a_small_model_learns_to_reverse(reverser):
    source = held_out()
    right = [got == s[::-1].tolist() for got, s in zip(written(reverser, source), source, strict=True)]
    assert np.mean(right) >= 0.95


def test_it_looks_at_the_symbol_it_writes(reverser):
    source = [s for s in held_out(200) if len(s) == LONGEST]
    x, lengths = columns(source)
    y, _ = columns([np.append(s[::-1], EOS) for s in source])
    with torch.no_grad():
        alpha = reverser.decode(shifted(y), reverser.encode(x, lengths))[2]
    places = alpha[:-1].argmax(2).numpy()  # of the symbols, not of the end
    off = np.abs(places - np.arange(LONGEST)[::-1, None])
    assert np.mean(off <= 1) > 0.8, "the state at a symbol or beside it, since the encoder reads both ways"


def test_a_wider_beam_finds_nothing_less_probable(reverser):
    step = make_step(reverser)
    for s in held_out(20):
        with torch.no_grad():
            begin = reverser.encode(*columns([s]))
        best = [decoding.beam_search(step, begin, BOS, LONGEST + 2, width, EOS)[0] for width in (1, 3, 8)]
        assert best[0].tokens.tolist()[:-1] == written(reverser, [s])[0]
        assert best[0].log_prob <= best[1].log_prob + 1e-4
        assert best[0].log_prob <= best[2].log_prob + 1e-4


def test_samples_are_drawn_from_the_distribution():
    torch.manual_seed(3)
    model, n = Seq2Seq(7, 8, 5, 6).double(), 4000
    with torch.no_grad():
        model.bias.normal_()
        begin = map_tree(
            lambda leaf: leaf.expand(n, *leaf.shape[1:]), model.encode(torch.tensor([[4], [6]]), torch.tensor([2]))
        )
    step = make_step(model)
    p = np.exp(step(np.full(1, BOS), map_tree(lambda leaf: leaf[:1], begin))[0][0])
    found = decoding.sample(step, begin, np.full(n, BOS), 1, np.random.default_rng(4))
    shares = np.bincount(found[0], minlength=8) / n
    assert shares[PAD] == shares[BOS] == 0
    assert np.abs(shares - p).max() < 4.5 * np.sqrt(0.25 / n)


def test_numpy_torch_and_list_are_tokens_for_a_step():
    torch.manual_seed(0)
    model = Seq2Seq(7, 8, 5, 6)
    step, begin = make_step(model), model.encode(torch.tensor([[4, 5]]), torch.tensor([1, 1]))
    expected = step(np.array([1, 3]), begin)[0]
    for token in ([1, 3], torch.tensor([1, 3]), np.array([1, 3], np.int32)):
        assert np.array_equal(step(token, begin)[0], expected)


def test_a_step_leaves_no_graph_behind():
    model = Seq2Seq(7, 8, 5, 6)
    state = model.encode(torch.tensor([[4, 5]]), torch.tensor([1, 1]))
    _, after = make_step(model)([1, 1], state)
    assert not any(leaf.requires_grad for layer in after.layers for leaf in layer)


def test_without_a_gradient_through_the_guesses_the_model_still_learns():
    """Scheduled sampling: the loss of a batch falls when half of the tokens that it is fed are its own."""
    torch.manual_seed(0)
    model = Seq2Seq(4 + SYMBOLS, 4 + SYMBOLS, 8, 16)
    source = strings(np.random.default_rng(0), 16)
    x, lengths = columns(source)
    y, _ = columns([np.append(s[::-1], EOS) for s in source])
    adam, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for _ in range(60):
        loss = token_loss(model(x, lengths, shifted(y), 0.5), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(4 + SYMBOLS), abs=0.3)
    assert losses[-1] < 0.75 * losses[0]


def test_the_same_seed_makes_the_same_model():
    models = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        models.append(map_tree(lambda p: p.detach().numpy(), Seq2Seq(7, 8, 5, 6, 2).params()))
    assert_close(models[0], models[1], 0)
    assert not np.array_equal(models[0]["combine.weight"], models[2]["combine.weight"])
    moved = Seq2Seq(7, 8, 5, 6, 2)
    moved.load_state_dict({name: torch.tensor(array) for name, array in models[2].items()})
    assert_close(map_tree(lambda p: p.detach().numpy(), moved.params()), models[2], 0)
