"""Every event of the audit log, with the fields it may have. Pure.

Nothing else is written: no audio, no words, no secrets. docs/keys.md is made from this table.
"""

from typing import NamedTuple

ALWAYS = ("at", "event", "tenant", "key", "address", "request")
"""When, what, whose data, who did it, from where; any event may have these fields."""


class AuditEvent(NamedTuple):
    fields: tuple[str, ...]
    help: str


AUDIT_EVENTS: dict[str, AuditEvent] = {
    "key_created": AuditEvent(("id", "name", "scopes", "expires", "by"), "A key was made."),
    "key_rotated": AuditEvent(
        ("id", "replaced", "until", "by"),
        "`id` takes the place of the key `replaced`, which is valid until then.",
    ),
    "key_revoked": AuditEvent(("id", "by"), "A key is not valid any more."),
    "login_refused": AuditEvent(
        ("reason", "count"),
        "Somebody was not let in; `count` more times within a minute, for the same reason, from "
        "the same address.",
    ),
    "settings_changed": AuditEvent(
        ("settings",), "Settings were changed while the server ran, by `POST /config/update`."
    ),
    "job_deleted": AuditEvent(
        ("id", "by"),
        "A recording was deleted with its results, or its job cancelled; `by` is `retention` if "
        "its time was over.",
    ),
    "tenant_deleted": AuditEvent((), "It was asked for that all data of a tenant be deleted."),
    "tenant_changed": AuditEvent(
        ("id", "settings", "by"),
        "Settings of a tenant were set or removed by `voxray tenants`; `id`: those of a key, or "
        "`*` for each of its keys.",
    ),
    "entries_lost": AuditEvent(
        ("count",), "Entries are missing here: the file could not be written for too long."
    ),
}
