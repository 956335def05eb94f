"""Live transcription sessions: decisions in `session`, what they do in `driver`."""
