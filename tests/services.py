"""Where the tests find servers: on standard local ports, or where environment variables say.

``DURABLE_TEST_POSTGRESQL``, ``DURABLE_TEST_MARIADB``, ``DURABLE_TEST_AMQP`` and
``DURABLE_TEST_REDIS`` hold URLs. A server that does not answer skips the test that wants it, or
fails it with ``CI=true``.
"""

from __future__ import annotations

import functools
import os
from typing import NoReturn

import pytest
from kombu import Connection
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

DEFAULTS = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1/test",
    "mariadb": "mysql+pymysql://root@127.0.0.1/test",
    "amqp": "amqp://guest:guest@127.0.0.1:5672//",
    "redis": "redis://127.0.0.1:6379/0",
}


def service_url(name: str) -> str:
    """Return the URL of a server that answers; skip the running test otherwise, or fail it."""
    variable = f"DURABLE_TEST_{name.upper()}"
    url = os.environ.get(variable) or DEFAULTS[name]
    error = _try(name, url)
    if error is not None:
        missing(
            f"{name} does not answer at {_shown(url)} ({error}); start it there, or set {variable}"
        )
    return url


def missing(message: str) -> NoReturn:
    """Skip the running test, or fail it in continuous integration."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@functools.cache
def _try(name: str, url: str) -> str | None:
    """Return why the server cannot be used, None where it can. Asked once for each URL."""
    try:
        if name in ("amqp", "redis"):
            with Connection(url, connect_timeout=3) as connection:
                connection.ensure_connection(max_retries=0, timeout=3)
                connection.default_channel  # noqa: B018 - Redis only answers now
        else:
            with create_engine(url, poolclass=NullPool).connect():
                pass
    except Exception as exc:
        lines = str(exc).strip().splitlines()
        return f"{type(exc).__name__}: {lines[0] if lines else 'no reason given'}"
    return None


def _shown(url: str) -> str:
    return make_url(url.removesuffix("//")).render_as_string(hide_password=True)
