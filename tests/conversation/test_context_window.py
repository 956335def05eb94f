"""What a model gets to see of a long conversation."""

from deployments.interfaces import Message, ToolCall
from serve_app.conversation.context_window import fitted, tokens


def history(length: int) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(roles[n % 2], f"message {n} " + "word " * 20) for n in range(length)]


def test_all_is_fitteded_while_it_fits() -> None:
    said = history(4)
    assert fitted("Be kind.", said, 1000) == (Message("system", "Be kind."), *said)


def test_what_does_not_fit_is_summed_up() -> None:
    said = history(100)
    seen = fitted("Be kind.", said, 500)
    assert sum(map(tokens, seen)) <= 500
    assert seen[-1] == said[-1] and seen[0].role == "system"
    kept = len(seen) - 1
    assert seen[0].content.startswith("Be kind.\n\nEarlier in this conversation, in short:\n- ")
    assert f"message {99 - kept} " in seen[0].content, "what was dropped last is summed up"


def test_the_answer_of_a_tool_never_stands_alone() -> None:
    call = Message("assistant", "", (ToolCall(0, "c", "f", "x" * 2000),))
    said = [Message("user", "hi"), call, Message("tool", "42", (), "c"), Message("user", "so?")]
    assert [m.role for m in fitted("", said, 100)][-1:] == ["user"]
    assert "tool" not in [m.role for m in fitted("", said, 100)]
