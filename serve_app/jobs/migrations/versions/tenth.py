"""Corrections of results."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    newest = sa.Column("revision", sa.Integer, nullable=False, server_default="0")
    op.add_column("jobs", newest)
    op.create_table(
        "revisions",
        sa.Column(
            "job_id", sa.String(40), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("tenant", sa.String(80), nullable=False),
        sa.Column("parent", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("key", sa.String(80), nullable=False),
        sa.Column("edits", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("revisions")
    op.drop_column("jobs", "revision")
