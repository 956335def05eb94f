"""Live captions on a terminal: finals as lines, the running partial below them, progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from serve_app.cli import complain, console
from serve_app.client import (
    ConnectionResumed,
    ErrorNotice,
    Final,
    Partial,
    QualityNotice,
    Reconnecting,
    SessionClosed,
    TranscriptionEvent,
)


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
        self.finals: list[Final] = []
        self.failed = 0
        """Utterances that the server could not transcribe."""

    @contextmanager
    def shown(self) -> Iterator["Captions"]:
        with self._live:
            yield self

    def on_event(self, event: TranscriptionEvent) -> None:
        match event:
            case Partial(text):
                self._partial = Text(text, style="dim italic")
            case Final():
                self._final(event)
            case ErrorNotice(_, message):
                self.failed += 1
                complain(f"{self._title}: {message}")
            case _:
                self._note(event)
        self._advance(event)
        self._live.update(Group(self._partial, self._progress))

    def _final(self, final: Final) -> None:
        self.finals.append(final)
        self._partial = Text("")
        if final.text and console.is_terminal:
            stamp = Text(f"{final.start_ms / 1000:7.1f} ", style="cyan")
            console.print(stamp + Text(final.text, style="default"))

    def _note(self, event: TranscriptionEvent) -> None:
        match event:
            case Reconnecting(reason, wait_s):
                note = f"no connection ({reason}); trying again in {wait_s:.1f} s …"
            case ConnectionResumed(_, away_s):
                note = f"resumed after {away_s:.1f} s; nothing is lost"
            case QualityNotice(level, reason) if level:
                note = f"the server is busy ({reason}); captions may come later"
            case _:
                return
        console.print(Text(note, style="yellow"))

    def _advance(self, event: TranscriptionEvent) -> None:
        match event:
            case Partial() | Final():
                position_ms = event.audio_ms
            case SessionClosed(metrics):
                position_ms = metrics["audio_ms"]
            case _:
                return
        self._progress.update(self._task, completed=position_ms / 1000)
