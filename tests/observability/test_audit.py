"""The audit log: complete, bounded, private, and nobody waits for it."""

import ast
import asyncio
import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.identity.login_refused import RefusalReason
from serve_app.identity.refusals import MOST, Refusals
from serve_app.observability import audit as module
from serve_app.observability import audit_file
from serve_app.observability.audit import AuditLog, acting, audit, audited
from serve_app.observability.audit_events import ALWAYS, AUDIT_EVENTS
from serve_app.observability.audit_file import append
from serve_app.observability.ids import belonging
from serve_app.observability.metrics import Metrics
from serve_app.observability.table import LOGINS_REFUSED
from tests.test_architecture import ROOT, SOURCES, tree
from tests.waiting import until, wait_for


def entries(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def recorded(file: Path, act: Callable[[], object]) -> list[dict[str, Any]]:
    async def go() -> None:
        async with audited(file):
            act()

    asyncio.run(go())
    return entries(file)


def test_an_entry_says_when_what_and_who_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "audit.log"

    def act() -> None:
        with belonging(tenant="acme", request="req_1", job="job_1"):
            audit("key_revoked", id="k1", by="cli", words="what was said", address="")

    (entry,) = recorded(file, act)
    assert entry.pop("at").startswith("20")
    assert entry == {
        "event": "key_revoked", "tenant": "acme", "request": "req_1", "id": "k1", "by": "cli",
    }  # fmt: skip
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_nothing_is_created_where_nothing_happens(tmp_path: Path) -> None:
    async def go() -> None:
        async with audited(tmp_path / "audit.log"):
            pass

    asyncio.run(go())
    assert list(tmp_path.iterdir()) == []
    audit("key_revoked", id="nowhere")


def test_a_file_that_others_could_read_is_theirs_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.touch(mode=0o644)
    recorded(file, lambda: audit("key_revoked", id="k"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "audit.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        append(tmp_path / "audit.log", b"{}\n")
    assert not (tmp_path / "elsewhere").exists()


def _append_many(file: Path, who: int) -> None:
    audit_file.MAX_BYTES = 20_000
    for number in range(200):
        append(
            file, json.dumps({"who": who, "number": number, "filler": "x" * 50}).encode() + b"\n"
        )


def test_processes_write_and_rotate_one_file_without_losing_a_line(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append_many, args=(file, who)) for who in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    logs = [it for it in tmp_path.iterdir() if it.suffix != ".lock"]
    assert len(logs) > 1
    assert all(it.stat().st_size <= 20_000 for it in logs)
    found = [(it["who"], it["number"]) for log in logs for it in entries(log)]
    assert sorted(found) == [(who, number) for who in range(3) for number in range(200)]


def test_old_files_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "MAX_BYTES", 100)
    monkeypatch.setattr(audit_file, "FILES", 3)
    for number in range(10):
        append(tmp_path / "audit.log", b"%060d\n" % number)
    kept = sorted(it.name for it in tmp_path.iterdir() if it.suffix != ".lock")
    assert kept == ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3"]
    assert int((tmp_path / "audit.log.3").read_text()) == 6


def test_a_full_disk_blocks_nobody_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    full = True

    def disk(file: Path, lines: bytes) -> None:
        if full:
            raise OSError(28, "No space left on device")
        append(file, lines)

    monkeypatch.setattr(module, "append", disk)
    log = AuditLog(tmp_path / "audit.log")
    began = time.monotonic()
    for number in range(1000):
        log.add(b'{"number": %d}\n' % number)
    assert time.monotonic() - began < 1
    assert log.lost >= 900
    full = False
    log_lost = {"event": "entries_lost", "count": log.lost}
    wait_for(
        lambda: log_lost.items() <= next(iter(entries_of(tmp_path, "entries_lost")), {}).items()
    )
    log.close()
    assert len(entries(tmp_path / "audit.log")) == 1001 - log.lost


def entries_of(folder: Path, event: str) -> list[dict[str, Any]]:
    file = folder / "audit.log"
    return [it for it in entries(file) if it.get("event") == event] if file.exists() else []


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_no_half_of_it(tmp_path: Path) -> None:
    """By a limit on files, which the kernel enforces as it does a full disk."""
    script = """
import resource, sys
from pathlib import Path
from serve_app.observability.audit_file import append
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 1000))
append(Path(sys.argv[1]), b"%060d\\n" % 1)
try:
    append(Path(sys.argv[1]), b"%060d\\n" % 2)
except OSError as error:
    print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
append(Path(sys.argv[1]), b"%060d\\n" % 3)
"""
    file = tmp_path / "audit.log"
    told = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, check=True, cwd=ROOT
    )
    assert int(told.stdout) == errno.EFBIG
    assert [int(line) for line in file.read_text().splitlines()] == [1, 3]


def test_a_file_that_was_moved_away_begins_again(tmp_path: Path) -> None:
    """As tools do that rotate logs."""
    file = tmp_path / "audit.log"

    async def go() -> None:
        async with audited(file):
            audit("key_revoked", id="one")
            await until(file.exists)
            os.rename(file, tmp_path / "audit.log-20300101")
            audit("key_revoked", id="two")
            await until(file.exists)

    asyncio.run(go())
    assert [it["id"] for it in entries(tmp_path / "audit.log-20300101")] == ["one"]
    assert [it["id"] for it in entries(file)] == ["two"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_who_did_it_is_known_for_all_that_is_done_for_a_request(tmp_path: Path) -> None:
    def act() -> None:
        with acting("k1", "192.0.2.1"):
            audit("job_deleted", id="j1")
        audit("job_deleted", id="j2", by="retention")

    first, second = recorded(tmp_path / "audit.log", act)
    assert (first["key"], first["address"]) == ("k1", "192.0.2.1")
    assert "key" not in second and second["by"] == "retention"


ADDS = ("audit", "entry", "_record")
"""Functions that add an entry, each with the event's name among its first two arguments."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ADDS:
                names = [it.value for it in node.args[:2] if isinstance(it, ast.Constant)]
                yield from ((it, node) for it in names if isinstance(it, str))


def test_every_event_is_recorded_somewhere_with_fields_that_it_has() -> None:
    found = list(calls())
    assert {name for name, _ in found} == set(AUDIT_EVENTS)
    for name, call in found:
        given = {it.arg for it in call.keywords if it.arg}
        assert given <= {*ALWAYS, *AUDIT_EVENTS[name].fields}, name


def test_refused_logins_are_summed_by_address(tmp_path: Path) -> None:
    metrics = Metrics()
    refusals = Refusals(metrics)

    def act() -> None:
        for _ in range(500):
            refusals.note(RefusalReason.UNKNOWN, "192.0.2.1")
        refusals.note(RefusalReason.WRONG, "192.0.2.1", "k1")
        refusals.sum_up()
        refusals.sum_up()

    told = [
        (it["address"], it["reason"], it.get("key"), it.get("count"))
        for it in recorded(tmp_path / "audit.log", act)
    ]
    assert told == [
        ("192.0.2.1", "unknown", None, None),
        ("192.0.2.1", "wrong", "k1", None),
        ("192.0.2.1", "unknown", None, 499),
    ]
    counted = metrics.snapshot()[LOGINS_REFUSED.name]
    assert (counted[("unknown",)], counted[("wrong",)], counted[("token",)]) == (500, 1, 0)


def test_many_addresses_do_not_fill_memory_or_the_log(tmp_path: Path) -> None:
    refusals = Refusals(Metrics())

    def act() -> None:
        for number in range(5 * MOST):
            refusals.note(RefusalReason.UNKNOWN, f"2001:db8::{number:x}")
        refusals.sum_up()

    told = recorded(tmp_path / "audit.log", act)
    assert len(told) == MOST + 2
    assert (told[-1]["address"], told[-1]["count"]) == ("others", 4 * MOST - 1)
