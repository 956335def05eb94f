"""What a server without an optional package says when its feature is used."""

import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import httpx2 as httpx
import pytest
import yaml

from loadtest.speech import wav
from serve_app.cli import FAILED
from serve_app.cli.server import run_server
from serve_app.cli.simulated import simulated, with_simulated
from serve_app.config import Config, StorageConfig
from serve_app.extras import DOCX, ENGINES, POSTGRES, S3, SOCKET_IO, Extra, MissingExtra, module_of
from serve_app.jobs.database import Database
from serve_app.jobs.objects import Objects
from tests.fakes import served
from tests.jobs.test_jobs import code_of, config, running
from tests.test_package import EXTRAS

POSTGRES_URL = "postgresql+asyncpg://voxray@127.0.0.1:9/voxray"


def take_away(monkeypatch: pytest.MonkeyPatch, extra: Extra) -> None:
    monkeypatch.setitem(sys.modules, extra.module, None)


@pytest.mark.parametrize("extra", [DOCX, POSTGRES, S3, SOCKET_IO], ids=lambda it: it.name)
def test_an_extra_is_the_projects_and_named_when_missing(
    extra: Extra, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(line.startswith(extra.package) for line in EXTRAS[extra.name])
    assert module_of(extra).__name__ == extra.module
    take_away(monkeypatch, extra)
    with pytest.raises(MissingExtra) as refused:
        module_of(extra)
    assert (refused.value.code, refused.value.status) == ("missing_extra", 501)
    assert f"needs {extra.package}: pip install 'voxray[{extra.name}]'" in refused.value.message


def test_the_docx_export_is_refused_by_name(
    tmp_path: Path, talk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(monkeypatch, DOCX)
    with running(config(tmp_path)) as client:
        id_ = client.done(wav(talk))["id"]
        answer = client.get(f"/v1/jobs/{id_}/export/docx")
        assert (answer.status_code, code_of(answer)) == (501, "missing_extra")
        assert "voxray[docx]" in answer.json()["error"]["message"]
        assert client.get(f"/v1/jobs/{id_}/export/srt").status_code == 200


def test_socket_io_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(monkeypatch, SOCKET_IO)
    with served(config(tmp_path)) as address:
        answer = httpx.get(f"http://{address}/socket/?EIO=4&transport=polling")
        assert (answer.status_code, code_of(answer)) == (501, "missing_extra")
        assert httpx.get(f"http://{address}/v1/health").status_code == 200


@pytest.mark.parametrize("extra", [POSTGRES, S3], ids=lambda it: it.name)
def test_a_server_does_not_start_without_the_package_of_its_storage(
    extra: Extra,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    take_away(monkeypatch, extra)
    if extra is POSTGRES:
        monkeypatch.setenv("VOXRAY_DATABASE_URL", POSTGRES_URL)
    storage = {"objects": "s3://recordings"} if extra is S3 else {}
    file = tmp_path / "serve_config.yaml"
    file.write_text(yaml.safe_dump({"applications": [{"args": {"storage": storage}}]}))
    assert run_server(file, None, None, "sim") == FAILED
    said = " ".join(capsys.readouterr().err.split())
    assert f"pip install 'voxray[{extra.name}]'" in said


@pytest.mark.parametrize("engine", ["pocketsphinx", "espeak", "openai"])
def test_only_the_profile_cpu_simulates_an_engine_without_its_package(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(line.startswith(ENGINES[engine].package) for line in EXTRAS[ENGINES[engine].name])
    kind = {"pocketsphinx": "transcriber", "espeak": "speaker", "openai": "chat"}[engine]
    whole = Config(profile="cpu")
    assert simulated(whole) == {}
    take_away(monkeypatch, ENGINES[engine])
    with pytest.raises(MissingExtra, match=engine):
        simulated(Config.model_validate({kind: {"engine": engine}}))
    kinds = simulated(whole)
    assert list(kinds) == ([] if engine == "openai" else [kind])
    assert all("pip install 'voxray[" in reason for reason in kinds.values())
    args = with_simulated({"profile": "cpu", kind: {"scale": {"max_replicas": 3}}}, {kind: ""})
    assert Config.model_validate(args).engines[kind][0] == "sim"
    assert args[kind]["scale"] == {"max_replicas": 3}


@pytest.mark.parametrize("engine", ["voxtral-realtime", "kokoro"])
def test_the_profile_gpu_is_refused_without_its_packages(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ENGINES.values():
        monkeypatch.setitem(sys.modules, other.module, ModuleType(other.module))
        sys.modules[other.module].__spec__ = ModuleSpec(other.module, None)
    assert simulated(Config(profile="gpu")) == {}
    take_away(monkeypatch, ENGINES[engine])
    with pytest.raises(MissingExtra, match=rf"voxray\[{ENGINES[engine].name}\]"):
        simulated(Config(profile="gpu"))


def test_every_engine_names_an_extra_that_installs_it() -> None:
    for extra in ENGINES.values():
        named = [line for line in EXTRAS[extra.name] if re.match(r"[\w.-]+", line)]
        packages = {re.split(r"[\[=<>~; ]", line)[0] for line in named}
        assert extra.package in packages


def test_storage_without_its_package_is_refused_where_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in (POSTGRES, S3):
        take_away(monkeypatch, extra)
    with pytest.raises(MissingExtra, match="asyncpg"):
        Database(POSTGRES_URL)
    with pytest.raises(MissingExtra, match="obstore"):
        Objects(StorageConfig(objects="s3://recordings"))
    Objects(StorageConfig(objects=str(tmp_path)))  # a folder needs nothing more
