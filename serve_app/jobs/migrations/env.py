"""Alembic's entry point: runs the migrations on the connection that `database` provides."""

from alembic import context

from serve_app.jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
