"""Locust users: a live session paced in real time, and a recording over REST.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000            (web page on :8089)
    locust -f loadtest/locustfile.py --host … --headless -u 20 -r 5 -t 1m
    LOAD_SHAPE=ramp locust -f loadtest/locustfile.py --host … --headless     (ramp, or sustained)

A chunk's response time runs from its scheduled sending to the first transcript that covers it. A
run in which this generator was late itself says so at its end and fails: Locust in Python is honest
for some tens of users a process; `make bench-live` is for a thousand.
"""

import json
import os
import time
from typing import Any

import gevent
from locust import HttpUser, LoadTestShape, User, between, events, task
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from loadtest.generator import LATE_MS
from loadtest.percentile import percentile
from loadtest.speech import conversation, wav

CHUNK_MS = 100
CHUNK_BYTES = CHUNK_MS * 32
AUDIO = conversation()
LATE: list[float] = []


class LiveUser(User):
    """Speaks for the length of the conversation, then again."""

    wait_time = between(0.1, 1)

    @task
    def speak(self) -> None:
        url = str(self.host).replace("http", "ws", 1) + "/v1/transcribe/stream"
        began = time.perf_counter()
        try:
            with connect(url, compression=None) as socket:
                self.report("connect", began)
                sent: list[float] = []
                listening = gevent.spawn(self.listen, socket, sent)
                self.send(socket, sent)
                listening.join(timeout=30)
        except Exception as error:
            self.report("connect", began, error)

    def send(self, socket: Any, sent: list[float]) -> None:
        began = time.perf_counter()
        for number, at in enumerate(range(0, len(AUDIO), CHUNK_BYTES)):
            due = began + number * CHUNK_MS / 1000
            gevent.sleep(max(0.0, due - time.perf_counter()))
            LATE.append((time.perf_counter() - due) * 1000)
            sent.append(due)
            socket.send(AUDIO[at : at + CHUNK_BYTES])
        socket.send('{"type":"stop"}')

    def listen(self, socket: Any, sent: list[float]) -> None:
        covered = 0
        try:
            for frame in socket:
                event = json.loads(frame)
                if event["type"] == "speech_started":
                    covered = max(covered, -(-event["audio_ms"] // CHUNK_MS))
                elif event["type"] in ("partial", "final"):
                    until = min(event["audio_ms"] // CHUNK_MS, len(sent))
                    for chunk in range(covered, until):
                        self.report("chunk", sent[chunk])
                    covered = max(covered, until)
                elif event["type"] == "error":
                    self.report("session", sent[0], RuntimeError(event["code"]))
        except ConnectionClosed as closed:
            if closed.rcvd_then_sent is not False:  # else we hung up: the run is over
                self.report("session", sent[0], closed)

    def report(self, name: str, began: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="WS",
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=0,
            exception=error,
        )


class RecordingUser(HttpUser):
    """Sends a recording every few seconds."""

    wait_time = between(2, 5)
    weight = 0 if os.environ.get("LIVE_ONLY") else 1

    @task
    def transcribe(self) -> None:
        self.client.post("/v1/transcribe", data=wav(AUDIO))


if os.environ.get("LOAD_SHAPE"):

    class Shape(LoadTestShape):
        """`ramp`: ten more users every ten seconds for a minute; `sustained`: twenty for five."""

        def tick(self) -> tuple[int, float] | None:
            seconds: float = self.get_run_time()  # type: ignore[no-untyped-call]
            if os.environ["LOAD_SHAPE"] == "ramp":
                return (10 + int(seconds // 10) * 10, 10.0) if seconds < 60 else None
            return (20, 5.0) if seconds < 300 else None


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def judge_ourselves(environment: Any, **_: Any) -> None:
    late = percentile(sorted(LATE), 0.99)
    print(f"the generator's own sends were {late:.1f} ms late at p99")
    if late > LATE_MS:
        print(f"GENERATOR LATE: over {LATE_MS:g} ms; the latencies of this run mean nothing")
        environment.process_exit_code = 3
