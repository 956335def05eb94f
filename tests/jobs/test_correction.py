"""Corrections of a result, without a server."""

from hypothesis import given
from hypothesis import strategies as st

from deployments.interfaces import SpeakerTurn, Word
from serve_app.errors import ClientError
from serve_app.jobs.correction import Correction, corrected
from serve_app.jobs.quality import Quality
from serve_app.jobs.result import Result, StageResults, result

WORD = st.sampled_from(["a", "be", "see", "delta", "echo", "für", "x" * 30])


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Some segments of two speakers, with or without words."""
    texts = draw(st.lists(WORD, min_size=1, max_size=40))
    words = [Word(it, n * 8000, n * 8000 + 6000, 0.5) for n, it in enumerate(texts)]
    turns = [SpeakerTurn(n % 2, n * 40_000, (n + 1) * 40_000) for n in range(10)]
    stages = StageResults(words, "en", turns, None)
    has_words = draw(st.booleans())
    return result(stages, Quality.unknown(16_000), [], {"transcriber": "sim"}, has_words)


segment, number = st.integers(0, 8), st.integers(1, 12)
said = st.lists(WORD, max_size=12).map(" ".join)
EDITS = st.lists(
    st.one_of(
        st.builds(lambda s, t: {"op": "set_text", "segment": s, "text": t}, segment, said),
        st.builds(lambda s, w: {"op": "split", "segment": s, "word": w}, segment, number),
        st.builds(lambda s: {"op": "merge", "segment": s}, segment),
        st.builds(lambda s: {"op": "set_speaker", "segment": s, "speaker": "Anna"}, segment),
    ),
    max_size=8,
)


@given(results(), EDITS)
def test_a_corrected_result_is_sound(before: Result, edits: list[dict[str, object]]) -> None:
    try:
        after = corrected(before, Correction.model_validate({"edits": edits}).edits)
    except ClientError as error:
        assert error.code == "edit_unfit"
        return
    segments = after.aligned_segments
    assert len({it.id for it in segments}) == len(segments)
    assert after.full_text.split() == [w for it in segments for w in it.text.split()]
    for it in segments:
        if it.words:
            assert it.text.split() == [word.word for word in it.words]
            times = [at for word in it.words for at in (word.start_ms, word.end_ms)]
            assert times == sorted(times), "time does not run backwards"
            assert {word.speaker for word in it.words} == {it.speaker}
    assert [it.text for it in after.segments] == [it.text for it in segments]


@given(results(), segment, number)
def test_what_is_split_and_merged_again_is_the_same(before: Result, at: int, word: int) -> None:
    edits = [{"op": "split", "segment": at, "word": word}, {"op": "merge", "segment": at}]
    try:
        after = corrected(before, Correction.model_validate({"edits": edits}).edits)
    except ClientError:
        return
    assert after.full_text == before.full_text and after.words == before.words
    plain = [(it.id, it.text, it.start_ms, it.end_ms) for it in before.aligned_segments]
    assert [(it.id, it.text, it.start_ms, it.end_ms) for it in after.aligned_segments] == plain


def test_words_that_are_written_where_none_were_left_have_times() -> None:
    words = [Word(it, n * 40_000, n * 40_000 + 6_000, 0.5) for n, it in enumerate("abcd")]
    turns = [SpeakerTurn(n % 2, n * 40_000, (n + 1) * 40_000) for n in range(4)]
    stages = StageResults(words, "en", turns, None)
    before = result(stages, Quality.unknown(160_000), [], {"transcriber": "sim"}, True)
    edits = [
        {"op": "set_text", "segment": 1, "text": ""},
        {"op": "set_text", "segment": 1, "text": "x y z"},
        {"op": "merge", "segment": 0},
        {"op": "split", "segment": 0, "word": 3},
    ]
    after = corrected(before, Correction.model_validate({"edits": edits}).edits)
    first, second = after.aligned_segments[:2]
    assert (first.text, second.text) == ("a x y", "z")
    assert [it.word for it in first.words] == ["a", "x", "y"] and len(second.words) == 1
