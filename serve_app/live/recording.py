"""What was said in a live session, gathered from its finals."""

from collections import Counter

from serve_app.live.events import Event, TranscriptUpdate
from serve_app.live.transcript import WordOut


class Collector:
    """Keeps the words of a session's finals."""

    def __init__(self) -> None:
        self.words: list[WordOut] = []
        self._languages: Counter[str] = Counter()

    @property
    def language(self) -> str | None:
        """The language of most words, if the engine detects it."""
        return next((name for name, _ in self._languages.most_common(1)), None)

    def on_event(self, event: Event) -> None:
        match event:
            case TranscriptUpdate(final=True):
                self.words += [WordOut.of(word, event.start) for word in event.words]
                if event.language:
                    self._languages[event.language] += len(event.words)
