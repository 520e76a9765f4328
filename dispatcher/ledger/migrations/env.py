"""Alembic's entry: one connection, one transaction per upgrade, a lock against two at once."""

from alembic import context
from sqlalchemy import create_engine, pool, text

_MIGRATION_LOCK = 0x6F75_7461


def run() -> None:
    url: str = context.config.attributes["database_url"]
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        poolclass=pool.NullPool,
        hide_parameters=True,
    )
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.commit()
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.commit()
    engine.dispose()


run()
