"""Finds recordings by words of their transcripts: SQLite's FTS5, or PostgreSQL's `tsvector`.

A job's passages are written after its result, and again after each correction. Words that are
stored encrypted are not indexed, because an index has them in clear text.
"""

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from serve_app.errors import ClientError
from serve_app.jobs.database import Database
from serve_app.jobs.job import Job, JobState
from serve_app.jobs.objects import Objects
from serve_app.jobs.private import Private
from serve_app.jobs.result import Result
from serve_app.jobs.search_words import Term, for_postgresql, for_sqlite
from serve_app.jobs.tables import jobs, passages

log = logging.getLogger("voxray.jobs")

SHOWN = 3
"""Passages of each recording that an answer shows."""

MOST_CHARS = 2_000
"""Of a passage."""

AT_ONCE = 20
BEGIN, END = "\x01", "\x02"
_CONTROL = re.compile(r"[\x00-\x1f]+")


class Found(NamedTuple):
    """A passage, and where in its text the words are."""

    start_ms: int
    text: str
    marks: list[tuple[int, int]]

    @classmethod
    def of(cls, start_ms: int, marked: str) -> "Found":
        text, marks, begin = "", [], 0
        for part in re.split(f"([{BEGIN}{END}])", marked):
            if part == BEGIN:
                begin = len(text)
            elif part == END:
                marks.append((begin, len(text)))
            else:
                text += part
        return cls(start_ms, text, marks)


class SearchIndex:
    """Every method raises `ClientError` if a store is unavailable."""

    def __init__(self, database: Database, objects: Objects, private: Private) -> None:
        self._database = database
        self._objects = objects
        self._private = private

    async def index(self, job: Job) -> None:
        """Replaces the passages of a completed job."""
        found = [] if job.sealed_key else await self._passages(job)
        async with self._database.write() as connection:
            await connection.execute(passages.delete().where(passages.c.job_id == job.id))
            known = await connection.scalar(sa.select(jobs.c.id).where(jobs.c.id == job.id))
            if known and found:
                await connection.execute(passages.insert(), found)
            done = jobs.update().where(jobs.c.id == job.id).values(indexed=True)
            await connection.execute(done)

    async def index_some(self) -> None:
        """Some jobs that have no passages yet, the newest first."""
        missing = (jobs.c.state == JobState.COMPLETED) & jobs.c.indexed.is_(False)
        newest = jobs.select().where(missing).order_by(jobs.c.sequence.desc()).limit(AT_ONCE)
        async with self._database.read() as connection:
            rows = (await connection.execute(newest)).mappings().all()
        for row in rows:
            await self.index(self._private.job(row))

    async def find(
        self,
        tenant: str,
        asked: Sequence[Term],
        named: Sequence[str],
        before: int | None,
        most: int,
    ) -> list[str]:
        """Ids of recordings with such a passage, and those of `named`, the newest first."""
        async with self._database.read() as connection:
            own = passages.c.tenant == tenant
            spoken = sa.select(passages.c.job_id).where(own, _has(connection, asked))
            either = jobs.c.id.in_(spoken) | jobs.c.id.in_(named)
            wanted = sa.select(jobs.c.id).where(jobs.c.tenant == tenant, either)
            if before is not None:
                wanted = wanted.where(jobs.c.sequence < before)
            newest = wanted.order_by(jobs.c.sequence.desc()).limit(most)
            return list((await connection.execute(newest)).scalars())

    async def passages_of(self, id_: str, asked: Sequence[Term]) -> list[Found]:
        """The first passages of a recording with such words."""
        async with self._database.read() as connection:
            dialect = connection.dialect.name
            values = {"job": id_, "most": SHOWN, "words": WORDS[dialect](asked)}
            rows = await connection.execute(sa.text(MARKED[dialect]), values)
            return [Found.of(start_ms, text) for start_ms, text in rows]

    async def _passages(self, job: Job) -> list[dict[str, Any]]:
        """[] for a job whose result cannot be read: its search would not get better by a retry."""
        try:
            body = await self._objects.read(job, job.result_name)
        except ClientError as error:
            if error.code != "storage_damaged":
                raise
            log.warning("not_indexed", extra={"code": error.code, "job": job.id})
            return []
        result = Result.model_validate_json(body) if body else None
        return [
            {"job_id": job.id, "tenant": job.tenant, "start_ms": it.start_ms, "text": text}
            for it in (result.aligned_segments if result else [])
            if (text := _CONTROL.sub(" ", it.text)[:MOST_CHARS].strip())
        ]


WORDS = {"sqlite": for_sqlite, "postgresql": for_postgresql}

HAS = {
    "sqlite": "passages.id IN (SELECT rowid FROM passages_index WHERE passages_index MATCH :words)",
    "postgresql": "passages.words @@ to_tsquery('simple', :words)",
}

MARKED = {
    "sqlite": "SELECT passages.start_ms, "
    f"highlight(passages_index, 0, char({ord(BEGIN)}), char({ord(END)})) "
    "FROM passages_index JOIN passages ON passages.id = passages_index.rowid "
    "WHERE passages_index MATCH :words AND passages.job_id = :job "
    "ORDER BY passages.start_ms LIMIT :most",
    "postgresql": "SELECT start_ms, ts_headline('simple', text, to_tsquery('simple', :words), "
    f'\'HighlightAll=true, StartSel="{BEGIN}", StopSel="{END}"\') FROM passages '
    "WHERE words @@ to_tsquery('simple', :words) AND job_id = :job "
    "ORDER BY start_ms LIMIT :most",
}


def _has(connection: Any, asked: Sequence[Term]) -> Any:
    """A condition: the passage has the words."""
    dialect = connection.dialect.name
    return sa.text(HAS[dialect]).bindparams(words=WORDS[dialect](asked))
