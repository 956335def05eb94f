"""`voxray keys`: what it prints, stores and writes to the audit log, on SQLite and PostgreSQL."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml
from typer.testing import CliRunner, Result

from serve_app.cli import keys
from serve_app.cli.main import app
from serve_app.config import Config
from serve_app.identity.api_key import parsed_key
from serve_app.jobs.database import Database
from serve_app.jobs.tables import api_keys
from tests.fakes import served
from tests.waiting import wait_for

PEPPER = base64.b64encode(b"p" * 32).decode()
DAY_S = 86_400


class Command:
    """`voxray keys` with a configuration of its own."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.args = {"profile": "sim", "auth": "keys", "storage": {"directory": str(folder)}}
        self.file = folder / "serve.yaml"
        self.file.write_text(yaml.safe_dump({"applications": [{"args": self.args}]}))
        self.url = database_url
        self.audit = folder / "audit.log"

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["keys", *words, "--config", str(self.file)])

    def made(self, *words: str) -> str:
        """The key, alone on stdout."""
        result = self.run(*words)
        assert result.exit_code == 0, result.output
        key, end, rest = result.stdout.partition("\n")
        assert parsed_key(key) and end and not rest
        assert key not in result.stderr, "it is shown once"
        return key

    def listed(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.run("list", "--json").stdout)
        return {it["id"]: it for it in found}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


@pytest.fixture
def command(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", PEPPER)
    monkeypatch.setenv("VOXRAY_DATABASE_URL", database_url)
    yield Command(tmp_path, database_url)


def id_of(key: str) -> str:
    shown = parsed_key(key)
    assert shown
    return shown.id


CREATE = ("create", "--tenant", "acme", "--scopes", "chat,speak", "--expires", "90d")


def test_a_key_is_made_listed_and_stored_without_its_secret(command: Command) -> None:
    key = command.made(*CREATE, "--name", "phone [1]")
    (row,) = command.listed().values()
    assert (row["id"], row["tenant"], row["name"]) == (id_of(key), "acme", "phone [1]")
    assert (row["scopes"], row["state"], row["last_used"]) == (["chat", "speak"], "valid", None)
    assert abs(row["expires"] - time.time() - 90 * DAY_S) < 60
    table = command.run("list")
    assert id_of(key) in table.stdout and "phone [1]" in table.stdout
    secret = key.split("_")[2]
    stored = json.dumps(asyncio.run(_rows(command.url)), default=str)
    for place in (table.output, json.dumps(row), stored, command.audit.read_text()):
        assert secret[:20] not in place


async def _rows(url: str) -> list[Any]:
    database = Database(url)
    async with database.read() as connection:
        rows = [dict(row) for row in (await connection.execute(api_keys.select())).mappings()]
    await database.close()
    return rows


def test_only_who_asks_for_it_gets_an_admins_key(command: Command) -> None:
    command.made("create")
    command.made("create", "--scopes", "admin")
    user, admin = sorted((set(it["scopes"]) for it in command.listed().values()), key=len)[::-1]
    assert admin == {"admin"} and "admin" not in user and len(user) == 5


def test_a_key_is_revoked_by_its_id_or_by_itself(command: Command) -> None:
    one, other = command.made(*CREATE), command.made(*CREATE)
    for shown in (id_of(one), other):
        result = command.run("revoke", shown)
        assert result.exit_code == 0 and "revoked" in result.stderr and not result.stdout
    assert {it["state"] for it in command.listed().values()} == {"revoked"}
    assert command.run("revoke", id_of(one)).exit_code == 0, "again changes nothing"
    told = [(it["event"], it["id"]) for it in command.events()]
    assert told[2:4] == [("key_revoked", id_of(one)), ("key_revoked", id_of(other))]


def test_a_rotated_key_overlaps(command: Command) -> None:
    old = command.made(*CREATE)
    new = command.made("rotate", id_of(old), "--overlap", "2h")
    rows = command.listed()
    assert {it["state"] for it in rows.values()} == {"valid"}
    was, now = rows[id_of(old)], rows[id_of(new)]
    assert abs(was["expires"] - time.time() - 7_200) < 60
    assert abs(now["expires"] - time.time() - 90 * DAY_S) < 60
    assert (now["tenant"], now["scopes"]) == (was["tenant"], was["scopes"])
    event = command.events()[-1]
    assert (event["event"], event["id"], event["replaced"]) == (
        "key_rotated",
        id_of(new),
        was["id"],
    )
    command.run("revoke", id_of(new))
    assert command.run("rotate", id_of(new)).exit_code == 1, "it is not valid any more"


def test_a_server_takes_them_at_once_and_knows_their_use(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.identity.known_keys.USED_EVERY_S", 0.2)
    with served(Config.model_validate(command.args)) as address:

        def status(key: str, path: str = "/v1/models") -> int:
            headers = {"x-api-key": key}
            return httpx.get(f"http://{address}{path}", headers=headers).status_code

        old = command.made(*CREATE)
        assert (status(old), status(old, "/v1/jobs")) == (200, 403)
        new = command.made("rotate", old)
        assert (status(old), status(new)) == (200, 200)
        wait_for(lambda: command.listed()[id_of(old)]["last_used"], 30)
        command.run("revoke", old)
        wait_for(lambda: status(old) == 401, 30)
        assert status(new) == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--scopes", "chat,root"], "there is no scope 'root'"),
        (["create", "--tenant", "../x"], "no name for a tenant"),
        (["create", "--expires", "soon"], "no duration"),
        (["create", "--expires", "-1d"], "no duration"),
        (["create", "--name", "a\nb"], "printable"),
        (["create", "--scopes", ""], "there is no scope ''"),
        (["rotate", "x", "--overlap", "0s"], "no duration"),
    ],
)
def test_wrong_words_are_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", PEPPER)
    result = Command(tmp_path, "").run(*words)
    assert (result.exit_code, result.stdout) == (2, "") and said in result.stderr
    assert not (tmp_path / "voxray.db").exists()


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command(tmp_path, "")
    assert "openssl rand -base64 32" in command.run("create").stderr, "a pepper"
    monkeypatch.setenv("VOXRAY_KEY_PEPPER", PEPPER)
    for verb in ("revoke", "rotate"):
        result = command.run(verb, "nothing")
        assert result.exit_code == 1 and "there is no valid key 'nothing'" in result.stderr
    monkeypatch.setenv("VOXRAY_DATABASE_URL", "postgresql+asyncpg://x@127.0.0.1:9/x")
    result = command.run("list")
    assert result.exit_code == 1 and "Traceback" not in result.output


def test_the_first_start_prints_one_admin_key_once(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config.model_validate(command.args)
    keys.print_first_key(config)
    said = capsys.readouterr().err
    (shown,) = [word for word in said.split() if parsed_key(word)]
    (row,) = command.listed().values()
    assert row["id"] == id_of(shown) and "admin" in row["scopes"] and row["tenant"] == "default"
    command.run("revoke", shown)
    keys.print_first_key(config)
    assert capsys.readouterr().err == "", "a server whose keys are all revoked is not opened again"
