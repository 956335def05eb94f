"""Passages of transcripts that can be searched, and which jobs have theirs.

SQLite: an FTS5 index beside the table (https://sqlite.org/fts5.html#external_content_tables).
Triggers keep it in step, also when a job's row takes its passages with it. FTS5 leaves deleted
words in its segments until they are merged; `stale` says that there may be some. PostgreSQL: a
`tsvector`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

SQLITE = (
    "CREATE VIRTUAL TABLE passages_index USING fts5("
    "text, content='passages', content_rowid='id', tokenize='unicode61 remove_diacritics 2')",
    "CREATE TABLE passages_stale (stale INTEGER NOT NULL)",
    "INSERT INTO passages_stale VALUES (0)",
    "CREATE TRIGGER passages_added AFTER INSERT ON passages BEGIN "
    "INSERT INTO passages_index (rowid, text) VALUES (new.id, new.text); END",
    "CREATE TRIGGER passages_gone AFTER DELETE ON passages BEGIN "
    "INSERT INTO passages_index (passages_index, rowid, text) VALUES ('delete', old.id, old.text); "
    "UPDATE passages_stale SET stale = 1 WHERE stale = 0; END",
)
POSTGRESQL = (
    "ALTER TABLE passages ADD COLUMN words tsvector "
    "GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED",
    "CREATE INDEX passages_words ON passages USING gin (words)",
)


def upgrade() -> None:
    op.create_table(
        "passages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column(
            "job_id", sa.String(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("passages_of_job", "passages", ["job_id"])
    indexed = sa.Column("indexed", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("jobs", indexed)
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE passages_index")
        op.execute("DROP TABLE passages_stale")
    op.drop_column("jobs", "indexed")
    op.drop_table("passages")
