"""The tables, as the migrations create them. Pure."""

import sqlalchemy as sa

metadata = sa.MetaData()


class Plain(sa.TypeDecorator[str]):
    """Text without NUL, which PostgreSQL rejects; clients may send it in file names and ids."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, _: sa.Dialect) -> str | None:
        return value.replace("\0", "") if value else value


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", Plain(40), nullable=False, unique=True),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("kind", Plain(8), nullable=False),
    sa.Column("state", Plain(12), nullable=False),
    sa.Column("step", Plain(16), nullable=False, default=""),
    sa.Column("progress", sa.Double, nullable=False, default=0.0),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("filename", Plain(255), nullable=False),
    sa.Column("media_type", Plain(80), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("digest", Plain(64), nullable=False),
    sa.Column("idempotency_key", Plain(255)),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("started", sa.Double),
    sa.Column("finished", sa.Double),
    sa.Column("not_before", sa.Double, nullable=False, default=0.0),
    sa.Column("lease", Plain(40)),
    sa.Column("lease_until", sa.Double, nullable=False, default=0.0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("losses", sa.Integer, nullable=False, default=0),
    sa.Column("duration_s", sa.Double),
    sa.Column("engine", Plain(120)),
    sa.Column("cached", sa.Boolean, nullable=False, default=False),
    sa.Column("warnings", sa.Text, nullable=False, default="[]"),
    sa.Column("error_code", Plain(60)),
    sa.Column("error_message", Plain(1000)),
    sa.Column("sealed_key", sa.LargeBinary),
    sa.Column("private", sa.LargeBinary),
    sa.Column("key", Plain(80), nullable=False, default=""),
    sa.Column("heard_s", sa.Double, nullable=False, default=0.0),
    sa.Column("indexed", sa.Boolean, nullable=False, default=False),
    sa.Column("revision", sa.Integer, nullable=False, default=0),
    sa.UniqueConstraint("tenant", "idempotency_key", name="jobs_idempotency"),
    sa.Index("jobs_waiting", "state", "priority", "sequence"),
    sa.Index("jobs_of_tenant", "tenant", "sequence"),
)

passages = sa.Table(
    "passages",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("job_id", Plain(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("start_ms", sa.BigInteger, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("passages_of_job", "job_id"),
)
"""Of transcripts that can be searched; what finds them is in the migration."""

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("job_id", Plain(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("parent", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("key", Plain(80), nullable=False),
    sa.Column("edits", sa.Integer, nullable=False),
)
"""Corrections of results; the result of each is an object."""

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", Plain(40), primary_key=True),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("key", Plain(80), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
    sa.Column("parts", sa.Text, nullable=False),
    sa.Column("sealed_key", sa.LargeBinary),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
    sa.Column("job_id", Plain(40)),
    sa.Index("uploads_of_tenant", "tenant"),
)
"""Recordings that arrive in several requests; `parts`: the names of their objects, as JSON."""

cache = sa.Table(
    "cache",
    metadata,
    sa.Column("tenant", Plain(80), primary_key=True),
    sa.Column("fingerprint", Plain(64), primary_key=True),
    sa.Column("job_id", Plain(40), sa.ForeignKey("jobs.id", ondelete="CASCADE")),
    sa.Column("used", sa.Double, nullable=False),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", Plain(40), primary_key=True),
    sa.Column("job_id", Plain(40), nullable=False),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("url", Plain(2000), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("state", Plain(12), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("due", sa.Double, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("outcome", Plain(200)),
    sa.Column("private", sa.LargeBinary),
    sa.Index("deliveries_due", "state", "due"),
)

histories = sa.Table(
    "histories",
    metadata,
    sa.Column("id", Plain(40), primary_key=True),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.Index("histories_updated", "updated"),
)

deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("tenant", Plain(80), primary_key=True),
    sa.Column("before", sa.Double, nullable=False),
)
"""Tenants whose data of before that time is being deleted."""

shares = sa.Table(
    "shares",
    metadata,
    sa.Column("tenant", Plain(80), primary_key=True),
    sa.Column("counter", sa.Double, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", Plain(20), primary_key=True),
    sa.Column("tenant", Plain(80), nullable=False),
    sa.Column("name", Plain(80), nullable=False),
    sa.Column("scopes", Plain(200), nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("pepper", Plain(20), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double),
    sa.Column("revoked", sa.Double),
    sa.Column("last_used", sa.Double),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("changed", sa.Double, nullable=False),
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant", Plain(80), primary_key=True),
    sa.Column("key", Plain(80), primary_key=True),
    sa.Column("settings", sa.Text, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("changed", sa.Double, nullable=False),
)
"""What overrides the configuration: a JSON object of names and numbers."""

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("tenant", Plain(80), primary_key=True),
    sa.Column("key", Plain(80), primary_key=True),
    sa.Column("kind", sa.String(20), primary_key=True),
    sa.Column("source", sa.String(40), primary_key=True),
    sa.Column("amount", sa.Double, nullable=False),
)
