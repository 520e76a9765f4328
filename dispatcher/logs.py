"""How this program logs: one line an event, names and numbers of ours, nobody's contact.

Vendors' and transports' loggers are held at warning, since at debug they print requests.
"""

import logging
import sys

import structlog

_QUIET = (
    "twilio",
    "sendgrid",
    "python_http_client",
    "tweepy",
    "requests",
    "requests_oauthlib",
    "oauthlib",
    "urllib3",
    "google",
    "httpx",
    "httpcore",
    "psycopg",
    "sqlalchemy",
    "alembic",
    "kombu",
    "amqp",
    "celery",
    "uvicorn.access",
    "asyncio",
)


def configure(level: str, form: str) -> None:
    """Send structlog and the standard library's loggers to stderr in one form."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    final: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Where, not what: an exception's locals and arguments stay out.
                structlog.processors.format_exc_info,
                final,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
