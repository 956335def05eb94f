"""The items of a conversation in order: messages, function calls and their outputs. Pure.

Of a spoken reply the model sees only what the person heard.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from deployments.interfaces import Message, ToolCall
from serve_app.errors import ClientError

ROOT = "root"
"""The position before the first item."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message, a function call, or the output of one (`text`)."""

    id: str
    kind: Literal["message", "call", "output"]
    role: Literal["user", "assistant", "system"] = "assistant"
    text: str = ""
    spoken: bool = False
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    heard: str | None = None
    """What the person heard of a spoken reply that was interrupted."""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class History:
    """Ids are unique; an item is replaced by one of the same id."""

    def __init__(self, max_items: int) -> None:
        self._items: list[Item] = []
        self._max_items = max_items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def last(self) -> str | None:
        return self._items[-1].id if self._items else None

    def get(self, id_: str) -> Item:
        """Raises `ClientError` for an unknown id."""
        return self._items[self._index(id_)]

    def __contains__(self, id_: str) -> bool:
        return any(item.id == id_ for item in self._items)

    def append(self, item: Item) -> str | None:
        """Add at the end; the id of the item before it. Beyond a bound the oldest is dropped."""
        before = self.last
        self._items.append(item)
        if len(self._items) > 2 * self._max_items:
            del self._items[0]
        return before

    def insert(self, item: Item, after: str | None) -> str | None:
        """Add a client's item, at the end or after another; the id of the item before it."""
        if item.id in self:
            raise ClientError(
                "item_create_duplicate_item_id", f"an item with id {item.id[:80]!r} exists already"
            )
        if len(self._items) >= self._max_items:
            raise ClientError(
                "too_many_items", f"a conversation may have at most {self._max_items} items"
            )
        if after is None:
            return self.append(item)
        index = 0 if after == ROOT else self._index(after) + 1
        self._items.insert(index, item)
        return self._items[index - 1].id if index else None

    def update(self, item: Item) -> None:
        """Replace the item with the same id; does nothing if that was deleted."""
        self._items = [item if known.id == item.id else known for known in self._items]

    def delete(self, id_: str) -> None:
        del self._items[self._index(id_)]

    def truncate(self, id_: str, heard: str) -> Item:
        item = self.get(id_)
        if item.kind != "message" or item.role != "assistant" or not item.spoken:
            raise ClientError("invalid_message", "only a spoken reply can be truncated")
        item = replace(item, heard=heard)
        self.update(item)
        return item

    def messages(self) -> list[Message]:
        """For the chat engine; consecutive calls are one message."""
        messages: list[Message] = []
        for item in self._items:
            message = as_message(item)
            if message.calls and messages and messages[-1].calls:
                message = _joined(messages.pop(), message.calls[0])
            if message.content or message.calls or message.role == "tool":
                messages.append(message)
        return messages

    def _index(self, id_: str) -> int:
        for index, item in enumerate(self._items):
            if item.id == id_:
                return index
        raise ClientError("item_not_found", f"there is no item with id {id_[:80]!r}")


def as_message(item: Item) -> Message:
    if item.kind == "call":
        return Message("assistant", "", (ToolCall(0, item.call_id, item.name, item.arguments),))
    if item.kind == "output":
        return Message("tool", item.text, (), item.call_id)
    return Message(item.role, (item.text if item.heard is None else item.heard).strip())


def _joined(message: Message, call: ToolCall) -> Message:
    return message._replace(calls=(*message.calls, call._replace(number=len(message.calls))))
