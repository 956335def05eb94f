"""A table for what the jobs of each tenant have had."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "shares",
        sa.Column("tenant", sa.String(80), primary_key=True),
        sa.Column("counter", sa.Double, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("shares")
