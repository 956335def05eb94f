"""A table for tenants whose data is being deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("tenant", sa.String(80), primary_key=True),
        sa.Column("before", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("deletions")
