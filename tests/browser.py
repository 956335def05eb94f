"""A real browser for tests: Chromium without a window, driven over its DevTools protocol.

`with running() as browser, browser.tab() as tab:`; `tab.open(url)` loads a page, `tab.run(js)` is
what a script of that page gets. Each tab has cookies and caches of its own. `running(*options)` adds
options to the command; `running(trusting(file))` trusts the key of this certificate as well, and no
other one that the system does not know; `running(*microphone(file))` hears this WAV file once.
"""

import base64
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import ClientConnection, connect

from tests.stores import absent
from tests.waiting import wait_for

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ANSWER_S = 30.0
LEFT = ("navigated or closed", "context was destroyed", "Cannot find context")
"""What the browser answers to a script whose page was left for another."""
OPTIONS = (
    "--headless",
    "--no-sandbox",  # in a container and as root there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--remote-debugging-port=0",
)


def program() -> str:
    """Skips the test where there is no Chromium."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    absent("Chromium is not installed")
    raise AssertionError("not reached")


class Tab:
    """One page after another."""

    def __init__(self, browser: "Browser", session: str) -> None:
        self._browser = browser
        self._session = session
        self.problems: list[str] = []
        """What the console of the browser shows as an error."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        """Until it is loaded."""
        failed = self.call("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"
        self.until("return document.readyState == 'complete'")

    def run(self, script: str) -> Any:
        """What the body of an asynchronous function returns, as JSON. Fails if it throws."""
        answer = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{{script}}})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 15.0) -> Any:
        """What `script` returns once that is true, on whatever page the tab is then."""
        return wait_for(lambda: self._run_if_it_stays(script), seconds, every_s=0.05)

    def _run_if_it_stays(self, script: str) -> Any:
        try:
            return self.run(script)
        except AssertionError as error:
            if any(left in str(error) for left in LEFT):
                return None
            raise

    def happened(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:500])
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.problems.append(json.dumps(params["args"])[:500])
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")


class Browser:
    """One process; not for several threads."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._tabs: dict[str, Tab] = {}

    def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """The result; what happens meanwhile is told to the tabs."""
        id_ = next(self._ids)
        message = {"id": id_, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        deadline = time.monotonic() + ANSWER_S
        while (said := self._next(deadline)).get("id") != id_:
            if tab := self._tabs.get(said.get("sessionId", "")):
                tab.happened(said["method"], said["params"])
        assert "error" not in said, f"{method}: {said['error']}"
        result: dict[str, Any] = said["result"]
        return result

    def _next(self, deadline: float) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._socket.recv(max(0.0, deadline - time.monotonic())))
        return said

    @contextmanager
    def tab(self, **context: Any) -> Iterator[Tab]:
        own = self.call("Target.createBrowserContext")["browserContextId"]
        page = self.call("Target.createTarget", url="about:blank", browserContextId=own)
        session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        id_ = session["sessionId"]
        tab = self._tabs[id_] = Tab(self, id_)
        try:
            yield tab
        finally:
            del self._tabs[id_]
            self.call("Target.disposeBrowserContext", browserContextId=own)


def microphone(wav: Path) -> list[str]:
    """Options: a microphone that plays the file once, permitted without a question."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}%noloop",
        "--autoplay-policy=user-gesture-required",
    ]


def trusting(certificate: str) -> str:
    """The option that names its key by the hash, as for HTTP Public Key Pinning (RFC 7469)."""
    public = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(der).digest()).decode()
    return f"--ignore-certificate-errors-spki-list={pin}"


@contextmanager
def running(*options: str) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program(), *OPTIONS, *options, f"--user-data-dir={folder}", "about:blank"]
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            with connect(_address(process, log, folder), max_size=None) as socket:
                yield Browser(socket)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # Debian's program is a script that starts it
            process.wait(20)


def _address(process: "subprocess.Popen[bytes]", log: Path, folder: str) -> str:
    """Where it listens, as it writes down when it does."""
    file = Path(folder) / "DevToolsActivePort"

    def lines() -> list[str]:
        assert process.poll() is None, log.read_text()[-3000:]
        return file.read_text().split() if file.exists() else []

    wait_for(lambda: len(lines()) == 2, 30)
    port, path = lines()
    return f"ws://127.0.0.1:{port}{path}"
