"""Writing: reasons to stop, pieces, mistakes of the caller. Its laws are in test_sampling_laws."""

import numpy as np
import pytest

from course_lib import checkpoint, language_model, writing
from course_lib.errors import CourseError
from course_lib.filters import temperature, top_k
from course_lib.text import CharTokenizer
from course_lib.writing import Scene, continuations, continue_text, generator

ROUND = "abcd"


@pytest.fixture
def circle():
    """A model of "abcdabcd...": behind each letter the next one, almost certainly."""
    tokenizer = CharTokenizer.from_text(ROUND)
    params = language_model.init(5, 5, 5, 1, "rnn", seed=0, dtype=np.float64)
    (layer,) = params.layers
    layer = layer._replace(W_ih=9 * np.eye(5), W_hh=0 * layer.W_hh, b=0 * layer.b)
    following = np.zeros((5, 5))
    following[[2, 3, 4, 1], [1, 2, 3, 4]] = 30
    params = params._replace(embedding=np.eye(5), layers=(layer,), W_out=following, b_out=np.zeros(5))
    return checkpoint.Checkpoint(params, tokenizer, {}, {}, {})


@pytest.mark.parametrize(
    ("options", "text", "stopped"),
    [
        ({}, "bcdabcda", "length"),
        ({"stop": ["da"]}, "bc", "stop"),
        ({"stop": ["dab", "cdab"]}, "b", "stop"),  # complete at once: the longer one
        ({"stop": ["bcda", "cd"]}, "b", "stop"),  # the first that is complete
        ({"stop": ["b"]}, "", "stop"),
        ({"stop": ["ab"]}, "bcd", "stop"),  # the a of the prompt is not searched
        ({"stop": ["abcdabcdabcd"]}, "bcdabcda", "length"),
        ({"match": "bcd"}, "bcd", "match"),
        ({"match": "[bcd]+"}, "bcd", "match"),  # the model would go on with a
        ({"match": "b*"}, "b", "match"),
        ({"match": ".*"}, "bcdabcda", "length"),
        ({"only": "bd", "filters": [top_k(1)]}, "b" + "b" * 7, "length"),  # neither follows b: of equals, the first
        ({"match": "[bcd]+", "stop": ["d"]}, "bc", "stop"),
    ],
)
def test_why_it_stops(circle, options, text, stopped):
    (found,) = continue_text(circle, "a", 8, **options)
    assert (found.prompt, found.text, found.stopped) == ("a", text, stopped)
    assert found.log_probs.shape == (len(text),)
    assert np.isnan(found.nats) if not text else found.nats >= 0


def test_streams_that_stop_at_different_times(circle):
    calls = []
    step = language_model.make_step(circle.params)
    drafts = [writing.Draft("", [stop]) for stop in ("d", "b", "cdab")]
    state, first = writing.read(circle, [circle.tokenizer.encode("a")] * 3, language_model.initial_state(circle.params, 3))

    def counted(token, state):
        calls.append(len(token))
        return step(token, state)

    writing.write(counted, state, first, circle.tokenizer, drafts, [generator(0, 0, k) for k in range(3)], 20, [])
    assert [draft.finished().text for draft in drafts] == ["bc", "", "b"]
    assert calls == [3, 2, 2, 1, 1]  # what has stopped is computed no more


def test_pieces(circle):
    pieces = []
    continue_text(circle, ["a", "c"], 6, stop=["dad"], show=lambda n, piece: pieces.append((n, piece)))
    assert [piece for n, piece in pieces if n == 0] == ["b", "c", "dab", "c"]
    assert "".join(piece for n, piece in pieces if n == 1) == "dabcda"
    assert pieces[-1] == (1, "da")  # held back until the length says that it is no stop string


def test_texts_come_batch_by_batch(circle, monkeypatch):
    monkeypatch.setattr(writing, "BATCH", 2)
    texts = continuations(circle, ["a", "b", "c"], 2)
    assert [found.text for found in texts] == ["bc", "cd", "da"]


def test_arguments_are_checked_before_anything_is_read(circle):
    for change, message in [
        ({"length": 0}, "length: expected at least 1, got 0"),
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"stop": [""]}, "stop: expected characters that the model can write, got ''"),
        ({"stop": ["a", "ax"]}, "stop: expected characters that the model can write, got 'ax'"),
        ({"only": "xyz"}, "allow: expected at least one token that the model knows, got 'xyz'"),
        ({"match": "("}, "matching: expected a regular expression, got '(' (missing ) at position 1)"),
    ]:
        with pytest.raises(ValueError) as caught:
            continuations(circle, **({"prompts": "a", "length": 3} | change))
        assert str(caught.value) == message
    for prompts, message in [
        ("", "the prompt has no character that the model knows; begin with at least one letter"),
        (["a", "狐"], "prompt 2, '狐', has no character that the model knows; begin with at least one letter"),
    ]:
        with pytest.raises(CourseError) as caught:
            continuations(circle, prompts, 3)
        assert str(caught.value) == message
    assert continue_text(circle, [], 3) == []


def test_unknown_characters_are_skipped(circle):
    assert [f.text for f in continue_text(circle, ["狐a狐", "a"], 4)] == ["bcda"] * 2
    assert continue_text(circle, "狐a", 4)[0].prompt == "狐a"


def test_a_scene_goes_on_where_it_was(circle):
    scene, rng = Scene(circle), np.random.default_rng(0)
    scene.read("a")
    assert scene.write(9, rng, [temperature(1)], ["da"]).text == "bc"
    assert scene.text == "abc"
    assert scene.write(2, rng).text == "da"  # the stop string was taken back, from the state too
    scene.read("")
    scene.read("c狐")
    assert scene.write(1, rng).text == "d"
    assert scene.text == "abcdac狐d"


def test_a_scene_needs_a_beginning(circle):
    scene = Scene(circle)
    scene.read("狐")
    with pytest.raises(CourseError) as caught:
        scene.write(3, np.random.default_rng(0))
    assert str(caught.value) == "the scene is empty; give the model at least one letter to begin with"
    scene.read("a")
    with pytest.raises(ValueError, match="length: expected at least 1, got 0"):
        scene.write(0, np.random.default_rng(0))


def test_the_first_generator_is_the_one_that_numpy_makes_of_the_seed():
    numbers = {(i, k): generator(5, i, k).random(4).tolist() for i in range(4) for k in range(4)}
    assert numbers[0, 0] == np.random.default_rng(5).random(4).tolist()
    assert len({*map(tuple, numbers.values())}) == 16
    assert numbers[0, 3] == np.random.default_rng(np.random.SeedSequence(5, spawn_key=(0, 3))).random(4).tolist()


def test_a_long_prompt_is_read_in_pieces(circle, monkeypatch):
    long = "abcd" * 300
    expected = continue_text(circle, [long + "ab", "a"], 4)
    assert [found.text for found in expected] == ["cdab", "bcda"]
    monkeypatch.setattr(writing, "_LOGITS", 70)
    assert [found.text for found in continue_text(circle, [long + "ab", "a"], 4)] == ["cdab", "bcda"]
