"""How Alembic reaches the books: over the connection it is given, inside the caller's transaction."""

from alembic import context

from dicomnode.bookkeeping.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transactional_ddl=False,  # the caller holds the transaction
)
context.run_migrations()
