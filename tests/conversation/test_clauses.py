"""Clauses of a reply, and what a model gets to see of a long conversation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.interfaces import Message, ToolCall
from serve_app.conversation.clauses import Sentences, speakable
from serve_app.conversation.context_window import remember, tokens


def clauses(*deltas: str) -> list[str]:
    sentences = Sentences()
    return [clause for delta in deltas for clause in sentences.push(delta)] + sentences.flush()


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        (
            ["Hello the", "re, how are you? I", " am well."],
            ["Hello there,", " how are you?", " I am well."],
        ),
        (["It costs 3", ".", "5 euros. Good"], ["It costs 3.5 euros.", " Good"]),
        (["Ask Dr. Smith or J. Doe. Now"], ["Ask Dr. Smith or J. Doe.", " Now"]),
        (["Yes. So, later, commas, wait. "], ["Yes.", " So, later, commas, wait.", " "]),
        (["你好。很好！"], ["你好。", "很好！"]),
        (["Line one\nline two"], ["Line one\n", "line two"]),
        ([""], []),
    ],
)
def test_clauses(deltas: list[str], expected: list[str]) -> None:
    assert clauses(*deltas) == expected


@given(st.lists(st.text("ab ,.!?\n。3", max_size=12)))
def test_nothing_is_lost_however_it_comes(deltas: list[str]) -> None:
    assert "".join(clauses(*deltas)) == "".join(deltas)


def test_text_without_any_mark_is_cut_all_the_same() -> None:
    assert max(map(len, clauses("word " * 200))) <= 241
    assert max(map(len, clauses("x" * 1000))) <= 241


@pytest.mark.parametrize(
    ("clause", "said"),
    [
        ("**Yes**, `it` is.", "Yes , it is."),
        ("- see [this page](http://x.y)", "see this page"),
        ("...", ""),
        (" \n", ""),
    ],
)
def test_what_is_for_the_eye_is_not_spoken(clause: str, said: str) -> None:
    assert speakable(clause) == said


def history(length: int) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[n % 2], f"message {n} " + "word " * 20) for n in range(length)]


def test_all_is_remembered_while_it_fits() -> None:
    said = history(4)
    assert remember("Be kind.", said, 1000) == (Message("system", "Be kind."), *said)


def test_what_does_not_fit_is_summed_up() -> None:
    said = history(100)
    seen = remember("Be kind.", said, 500)
    assert sum(map(tokens, seen)) <= 500
    assert seen[-1] == said[-1] and seen[0].role == "system"
    kept = len(seen) - 1
    assert seen[0].content.startswith("Be kind.\n\nEarlier in this conversation, in short:\n- ")
    assert f"message {99 - kept} " in seen[0].content, "what was dropped last is summed up"


def test_the_answer_of_a_tool_never_stands_alone() -> None:
    call = Message("assistant", "", (ToolCall(0, "c", "f", "x" * 2000),))
    said = [Message("user", "hi"), call, Message("tool", "42", (), "c"), Message("user", "so?")]
    assert [m.role for m in remember("", said, 100)][-1:] == ["user"]
    assert "tool" not in [m.role for m in remember("", said, 100)]
