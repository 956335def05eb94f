"""Jobs, webhooks and live recordings belong to whoever asked: nobody else sees them."""

import json
from pathlib import Path

import httpx2 as httpx
from websockets.sync.client import connect as websocket

from loadtest.speech import wav
from tests.api.sockets.test_live_socket import PATH
from tests.fakes import served
from tests.identity.keys import bearer, with_keys
from tests.jobs.test_jobs import config


def test_tenants_do_not_see_each_other(tmp_path: Path, talk: bytes) -> None:
    with served(with_keys(config(tmp_path), "acme", "bolt")) as address:
        mine, theirs = (
            httpx.Client(base_url=f"http://{address}", headers=bearer(it), timeout=30)
            for it in ("acme", "bolt")
        )
        with mine, theirs:
            id_ = mine.post("/v1/jobs", files={"file": ("a.wav", wav(talk))}).json()["id"]
            live = mine.post("/api/transcribe/start").json()["id"]
            assert [it["id"] for it in mine.get("/v1/jobs").json()["data"]] == [live, id_]
            assert theirs.get("/v1/jobs").json()["data"] == []
            assert theirs.get("/api/transcriptions").json()["transcriptions"] == []
            audio = f"/v1/jobs/{id_}/audio?original=true"
            for path in (f"/v1/jobs/{id_}", audio, f"/api/transcription/{live}"):
                assert (mine.get(path).status_code, theirs.get(path).status_code) == (200, 404)
            assert theirs.delete(f"/v1/jobs/{id_}").status_code == 404
            assert list(tmp_path.glob(f"objects/acme/{id_}/audio"))
        with websocket(
            f"ws://{address}{PATH}?transcription={live}", additional_headers=bearer("bolt")
        ) as nobody:
            told = [json.loads(nobody.recv(10)) for _ in range(2)]
        assert told[1]["code"] == "job_not_found", "another tenant's"
