"""What rows say in clients' words, sealed where the storage is encrypted. Pure, except for random
nonces.

A job's words are in its column `private`, sealed with the job's own key: a new operator's key does
not touch them, and deleting the job's key destroys them. Their own columns are blank then. A
webhook's are sealed with the operator's key, because it may outlive its job. Rows that were written
without encryption are read as they are.

    jobs.private       = nonce (12) | JSON, encrypted     job's key          AAD tenant/job|private
    deliveries.private = a sealed secret of `keyring`     operator's key     AAD tenant/id|private
"""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from serve_app.jobs.encryption import Damaged, unwrap, wrap
from serve_app.jobs.job import Job
from serve_app.jobs.keyring import KeyMissing, Keyring

Row = Mapping[Any, Any]
"""Of a table; SQLAlchemy's rows may be asked by column, too."""

OF_JOBS: dict[str, Any] = {
    "options": "{}",
    "filename": "",
    "digest": "",
    "warnings": "[]",
    "error_message": None,
}
"""The private columns of a job, and what is in them when the words are in `private`."""

OF_DELIVERIES = {"url": "", "body": ""}


class Private:
    """Seals if `encrypt`; opens whatever one of the keys opens."""

    def __init__(self, keys: Keyring | None = None, encrypt: bool = False) -> None:
        self._keys = keys
        self._seals = keys if encrypt else None

    def new_job(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A new job's row as it is stored."""
        if not (self._seals and row["sealed_key"]):
            return dict(row)
        return {**row, **self._words(row["tenant"], row["id"], row["sealed_key"], row)}

    def changed(self, job: Job, values: dict[str, Any]) -> dict[str, Any]:
        """Changes of a job's row as they are stored."""
        if not job.sealed_key or not OF_JOBS.keys() & values.keys():
            return values
        words = _columns(job) | values
        try:
            return {**values, **self._words(job.tenant, job.id, job.sealed_key, words)}
        except (KeyMissing, Damaged):
            return values  # it cannot run: nothing of it is in clients' words

    def rewrapped(self, row: Row) -> dict[str, Any]:
        """What makes a job's row one of the newest key, and what is plain of an old row, sealed.
        Raises `KeyMissing` and `Damaged`."""
        tenant, id_ = row["tenant"], row["id"]
        key = self._ring.rewrap(row["sealed_key"], f"{tenant}/{id_}")
        words = self._said(row) if row["private"] else row
        return {"sealed_key": key, **self._words(tenant, id_, key, words)}

    def job(self, row: Row) -> Job:
        """A job from its row. One whose key is missing has no words, and a warning says so."""
        if not row["private"]:
            return Job.of(row)
        try:
            words = self._said(row)
        except KeyMissing:
            words = {"warnings": '["storage_key_missing"]'}
        except Damaged:
            words = {"warnings": '["storage_damaged"]'}
        return Job.of({**row, **{name: it for name, it in words.items() if it is not None}})

    def digest(self, tenant: str, text: str) -> str:
        """What finds `text` in the database without showing it; plain without encryption."""
        return self._seals.digests(f"{tenant}|{text}")[0] if self._seals else text

    def stored_as(self, tenant: str, text: str) -> list[str]:
        """What such a text may be in the database: plain, or a digest with any key."""
        digests = self._keys.digests(f"{tenant}|{text}") if self._keys else []
        return [text, *digests]

    def new_delivery(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A new webhook's row as it is stored."""
        if not self._seals:
            return dict(row)
        words = orjson.dumps({name: row[name] for name in OF_DELIVERIES})
        sealed = self._seals.seal(words, delivery_path(row))
        return {**row, **OF_DELIVERIES, "private": sealed}

    def delivery(self, row: Row) -> Row:
        """A webhook's row. One whose key is missing has no URL."""
        if not row["private"]:
            return row
        try:
            bound = delivery_path(row)
            return {**row, **orjson.loads(self._ring.open(row["private"], bound))}
        except (KeyMissing, Damaged):
            return row

    def _said(self, row: Row) -> dict[str, Any]:
        """The words of a job. Raises `KeyMissing` and `Damaged`."""
        path = f"{row['tenant']}/{row['id']}"
        key = self._ring.open(row["sealed_key"], path)
        said: dict[str, Any] = orjson.loads(unwrap(key, row["private"], _bound(path)))
        return said

    def _words(
        self, tenant: str, id_: str, sealed_key: bytes, words: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The columns of a job whose words are sealed. Raises `KeyMissing` and `Damaged`."""
        path = f"{tenant}/{id_}"
        said = {name: words[name] for name in words.keys() & {*OF_JOBS, "idempotency_key"}}
        sealed = wrap(self._ring.open(sealed_key, path), orjson.dumps(said), _bound(path))
        key = words["idempotency_key"]
        digest = self._ring.digests(f"{tenant}|{key}")[0] if key is not None else None
        return {**OF_JOBS, "idempotency_key": digest, "private": sealed}

    @property
    def _ring(self) -> Keyring:
        """Raises `KeyMissing`."""
        if not self._keys:
            raise KeyMissing("none")
        return self._keys


def _columns(job: Job) -> dict[str, Any]:
    """A job's private columns, as they are without encryption."""
    return {
        "options": job.options.model_dump_json(),
        "filename": job.filename,
        "digest": job.digest,
        "warnings": json.dumps(job.warnings),
        "error_message": job.error_message,
        "idempotency_key": job.idempotency_key,
    }


def delivery_path(row: Row) -> str:
    """What the sealed words of a webhook are bound to."""
    return _bound(f"{row['tenant']}/{row['id']}")


def _bound(path: str) -> str:
    return f"{path}|private"
