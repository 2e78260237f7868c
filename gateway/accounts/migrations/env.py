"""How Alembic runs our migrations: on the connection, and in the transaction, that it is given."""

from __future__ import annotations

from alembic import context

from gateway.accounts.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite can't alter most things in place
    compare_server_default=True,
)
context.run_migrations()
