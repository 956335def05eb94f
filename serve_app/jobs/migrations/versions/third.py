"""Columns for what is sealed of jobs and webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for table in ("jobs", "deliveries"):
        op.add_column(table, sa.Column("private", sa.LargeBinary))


def downgrade() -> None:
    for table in ("jobs", "deliveries"):
        op.drop_column(table, "private")
