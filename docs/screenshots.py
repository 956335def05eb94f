"""Renders the pictures of README and docs/page.md: `make screenshots`.

The application with simulated engines runs in this process, and a browser without a window shows
it, on a desk and on a phone.
"""

import base64
import tempfile
import time
from pathlib import Path

import httpx2 as httpx

from loadtest.speech import conversation, wav
from serve_app.config import Config
from tests.browser import Browser, Tab, microphone, running
from tests.fakes import LocalReplicaSet, served, sim_transcriber, working
from tests.waiting import wait_for
from tests.web.page import DESKTOP, PHONE, click, opened, sized

PICTURES = Path(__file__).parent / "pictures"


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        talk = conversation()
        file = Path(folder) / "talk.wav"
        file.write_bytes(wav(talk))
        storage = {"directory": folder}
        config = Config.model_validate(
            {"profile": "sim", "storage": storage, "jobs": {"poll_s": 0.1}}
        )
        words = LocalReplicaSet(sim=sim_transcriber())
        with served(config) as address, working(config, transcriber=words):
            id_ = recorded(address, talk)
            with running(*microphone(file)) as browser:
                recording(browser, address, id_)
                live(browser, address, DESKTOP, "live")
            with running(*microphone(file)) as browser:
                live(browser, address, PHONE, "live-phone")


def recorded(address: str, talk: bytes) -> str:
    """A recording that is transcribed; its id."""
    url = f"http://{address}/v1/jobs"
    sent = {"file": ("Board meeting.wav", wav(talk * 3))}
    job = httpx.post(url, files=sent, data={"speakers": "2"}, timeout=60).json()["id"]
    wait_for(lambda: httpx.get(f"{url}/{job}").json()["state"] == "completed", 60)
    return str(job)


def recording(browser: Browser, address: str, id_: str) -> None:
    with browser.tab() as tab:
        sized(tab, DESKTOP)
        opened(tab, address, f"recordings/{id_}/4")
        tab.until("return !!document.querySelector('.transcript .text')")
        time.sleep(1)
        taken(tab, "recording")


def live(browser: Browser, address: str, size: tuple[int, int], name: str) -> None:
    with browser.tab() as tab:
        sized(tab, size)
        opened(tab, address, "live")
        click(tab, "#begin")
        tab.until("return document.querySelectorAll('.captions .final').length > 1", 60)
        taken(tab, name)


def taken(tab: Tab, name: str) -> None:
    picture = tab.call("Page.captureScreenshot", format="png")["data"]
    (PICTURES / f"{name}.png").write_bytes(base64.b64decode(picture))
    print(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
