"""`voxray jobs`: recordings handed in, watched, fetched, cancelled."""

import json
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx2 as httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from serve_app.cli import DONE, FAILED, NO_SERVER, complain, console, refusal

SUFFIXES = frozenset(
    ".wav .flac .mp3 .ogg .oga .opus .webm .mkv .m4a .mp4 .mov .aac .aif .aiff .caf .w64 "
    ".amr".split()
)
ENDED = ("completed", "failed", "cancelled")
POLL_S = 0.3
AWAY_S = 60.0
"""A server that is away for so long while jobs are watched is given up."""


class Refused(Exception):
    """The server's answer is no success."""


class Server:
    """The jobs of a server. Raises `Refused` and `httpx.HTTPError`."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=httpx.Timeout(60, write=600, read=600))

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self._client.request(method, path, **options)
        if answer.status_code >= 400:
            raise Refused(refusal(answer))
        return answer

    def job(self, id_: str) -> dict[str, Any]:
        job: dict[str, Any] = self.ask("GET", f"/v1/jobs/{id_}").json()
        return job


@contextmanager
def _server(url: str) -> Iterator[tuple[Server, list[int]]]:
    """With a place for the exit code, which is said here where the server refuses or is away."""
    outcome = [DONE]
    try:
        yield Server(url), outcome
    except Refused as error:
        complain(str(error))
        outcome[0] = FAILED
    except httpx.HTTPError:
        complain(f"no voxray server at {url}: start one with `voxray run`")
        outcome[0] = NO_SERVER


class Wanted(NamedTuple):
    """What becomes of jobs that are handed in."""

    options: dict[str, Any]
    watch: bool
    form: str
    out: Path | None


def submit(url: str, paths: Sequence[Path], wanted: Wanted) -> int:
    files = dict(_recordings(paths))
    if not files:
        complain(f"no recordings there; taken are {' '.join(sorted(SUFFIXES))}")
        return FAILED
    with _server(url) as (server, outcome):
        jobs: dict[str, Path] = {}
        refused = False
        for file, job in _hand_in(server, list(files), wanted.options):
            refused |= job is None
            if job:
                jobs[job["id"]] = files[file]
                print(job["id"], flush=True)
        outcome[0] = FAILED if refused else DONE
        if wanted.watch or wanted.out:
            ended = _watch(server, list(jobs))
            if any(job["state"] != "completed" for job in ended):
                outcome[0] = FAILED
            for job in ended if wanted.out else ():
                _save(server, job, jobs[job["id"]], wanted)
    return outcome[0]


def _recordings(paths: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """Files as they are named; of folders all that look like recordings. With each the place of
    its result below a folder."""
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*"))
            recordings = (it for it in found if it.suffix.lower() in SUFFIXES and it.is_file())
            yield from ((it, it.relative_to(path)) for it in recordings)
        else:
            yield path, Path(path.name)


def _hand_in(
    server: Server, files: Sequence[Path], options: dict[str, Any]
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for file in files:
            task = progress.add_task(f"sending {file.name}", total=file.stat().st_size)
            try:
                with file.open("rb") as body:
                    yield file, _send(server, file, _Watched(body, progress, task), options)
            except Refused as error:
                complain(f"{file}: {error}")
                yield file, None


def _send(server: Server, file: Path, body: Any, options: dict[str, Any]) -> dict[str, Any]:
    key = {"Idempotency-Key": uuid.uuid4().hex}  # sent again after a broken answer, it is one job
    answer = server.ask(
        "POST", "/v1/jobs", files={"file": (file.name, body)}, data=options, headers=key
    )
    job: dict[str, Any] = answer.json()
    return job


class _Watched:
    """A file whose reading moves a bar."""

    def __init__(self, file: IO[bytes], progress: Progress, task: TaskID) -> None:
        self._file, self._progress, self._task = file, progress, task
        self.seek, self.tell, self.fileno = file.seek, file.tell, file.fileno

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._progress.advance(self._task, len(piece))
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(1 << 16), b"")


def watch(url: str, ids: Sequence[str]) -> int:
    with _server(url) as (server, outcome):
        ended = _watch(server, ids or [job["id"] for job in _unfinished(server)])
        if any(job["state"] != "completed" for job in ended):
            outcome[0] = FAILED
    return outcome[0]


def _unfinished(server: Server) -> list[dict[str, Any]]:
    params = {"state": ["queued", "running", "cancelling"], "limit": 100}
    found: list[dict[str, Any]] = server.ask("GET", "/v1/jobs", params=params).json()["data"]
    return found


def _watch(server: Server, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Until all have ended; the jobs as they ended."""
    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    ended: dict[str, dict[str, Any]] = {}
    with Progress(*columns, console=console) as progress:
        tasks = {id_: progress.add_task("", total=100, name=id_[:12]) for id_ in ids}
        while len(ended) < len(tasks):
            for id_ in tasks.keys() - ended.keys():
                job = _patiently(server, id_)
                said = job["step"] if job["state"] == "running" and job["step"] else job["state"]
                name = job["file"]["name"]
                progress.update(tasks[id_], completed=job["progress"], description=said, name=name)
                if job["state"] in ENDED:
                    ended[id_] = job
                    progress.stop_task(tasks[id_])
            time.sleep(POLL_S if len(ended) < len(tasks) else 0)
    for job in ended.values():
        if job["error"]:
            complain(f"{job['file']['name']}: {job['error']['code']}: {job['error']['message']}")
    return [ended[id_] for id_ in ids]


def _patiently(server: Server, id_: str) -> dict[str, Any]:
    """A server that restarts is waited for."""
    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            return server.job(id_)
        except (httpx.HTTPError, Refused):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _save(server: Server, job: dict[str, Any], file: Path, wanted: Wanted) -> None:
    assert wanted.out
    if job["state"] != "completed":
        return
    body = server.ask("GET", f"/v1/jobs/{job['id']}/export/{wanted.form}").content
    place = (wanted.out / file).with_suffix(f".{wanted.form}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(body)
    console.print(f"wrote {place}")


def list_jobs(url: str, state: str | None, limit: int, as_json: bool) -> int:
    with _server(url) as (server, outcome):
        params = {"limit": limit, **({"state": state} if state else {})}
        found = server.ask("GET", "/v1/jobs", params=params).json()
        if as_json:
            print(json.dumps(found))
        else:
            Console(highlight=False).print(_table(found["data"]))
    return outcome[0]


def _table(jobs: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    table.add_column("job", no_wrap=True, min_width=36)
    for name in ("state", "done", "audio"):
        table.add_column(name, no_wrap=True)
    table.add_column("file")
    for job in jobs:
        seconds = job["file"]["duration_s"]
        table.add_row(
            job["id"],
            (job["state"] == "running" and job["step"]) or job["state"],
            f"{job['progress']:.0f} %",
            f"{seconds:.0f} s" if seconds is not None else "",
            job["file"]["name"],
        )
    return table


def get(url: str, id_: str) -> int:
    """The result as JSON; the job while there is none."""
    with _server(url) as (server, outcome):
        print(json.dumps(server.ask("GET", f"/v1/jobs/{id_}/results").json(), indent=2))
    return outcome[0]


def cancel(url: str, ids: Sequence[str]) -> int:
    with _server(url) as (server, outcome):
        for id_ in ids:
            answer = server.ask("DELETE", f"/v1/jobs/{id_}")
            state = "deleted" if answer.status_code == 204 else answer.json()["state"]
            console.print(f"{id_}: {state}")
    return outcome[0]


def export(url: str, id_: str, form: str, out: Path | None) -> int:
    with _server(url) as (server, outcome):
        answer = server.ask("GET", f"/v1/jobs/{id_}/export/{form}")
        if answer.status_code != 200:
            complain(f"the job is {answer.json()['state']}: there is no result yet")
            return FAILED
        if out:
            out.write_bytes(answer.content)
        else:
            sys.stdout.buffer.write(answer.content)
    return outcome[0]
