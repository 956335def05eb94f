"""Live captions on a terminal: finals as lines, the running partial below them, progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from serve_app.cli import complain, console
from serve_app.cli.client import Event


class Captions:
    """Fed with a session's events. `total_s` is the recording's length, None for a microphone."""

    def __init__(self, title: str, total_s: float | None) -> None:
        self._title = title
        self._partial = Text("")
        self._progress = Progress(
            TextColumn(title, markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=total_s)
        self._live = Live(console=console, refresh_per_second=10, transient=True)
        self.finals: list[Event] = []
        self.failed = 0
        """Utterances that the server could not transcribe."""

    @contextmanager
    def shown(self) -> Iterator["Captions"]:
        with self._live:
            yield self

    def on_event(self, event: Event) -> None:
        match event["type"]:
            case "partial":
                self._partial = Text(event["text"], style="dim italic")
            case "final":
                self._final(event)
            case "error" if not event["fatal"]:
                self.failed += 1
                complain(f"{self._title}: {event['message']}")
        if "audio_ms" in event:
            self._progress.update(self._task, completed=event["audio_ms"] / 1000)
        if event["type"] == "closed":
            self._progress.update(self._task, completed=event["metrics"]["audio_ms"] / 1000)
        self._live.update(Group(self._partial, self._progress))

    def _final(self, event: Event) -> None:
        self.finals.append(event)
        self._partial = Text("")
        if event["text"] and console.is_terminal:
            stamp = Text(f"{event['start_ms'] / 1000:7.1f} ", style="cyan")
            console.print(stamp + Text(event["text"], style="default"))
