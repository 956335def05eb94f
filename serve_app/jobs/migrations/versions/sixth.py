"""A table for what is used; and for each job, whose it is and how much of it was heard."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("tenant", sa.String(80), primary_key=True),
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("source", sa.String(40), primary_key=True),
        sa.Column("amount", sa.Double, nullable=False),
    )
    op.add_column("jobs", sa.Column("key", sa.String(80), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("heard_s", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("jobs", "heard_s")
    op.drop_column("jobs", "key")
    op.drop_table("usage")
