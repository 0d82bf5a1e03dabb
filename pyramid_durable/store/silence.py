"""How soon a peer that neither answers nor closes is noticed (web and daemon)."""

from __future__ import annotations

from sqlalchemy.engine import URL

from ..exceptions import InvalidSetting

DEAD_PEER = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 8000,
}
"""libpq's ways to notice, within some 9 seconds, a peer that neither answers nor closes: a daemon
has to be back on its feet before a default lease (15 s) is over. ``tcp_user_timeout`` is in ms."""

ANSWER_WITHIN = 30
"""Seconds without a word of an answer: long enough for every statement of ours, a migration of a
large table apart. It notices a peer that is there, acknowledges what it is sent, and says nothing."""

READ_TIMEOUT = "read_timeout"
"""What the drivers of MariaDB call it, and a URL of the store for either database."""

SILENT_PEER = {
    "connect_timeout": 5,
    READ_TIMEOUT: ANSWER_WITHIN,
    "write_timeout": ANSWER_WITHIN,
}
"""MariaDB's drivers know how long one answer may take, and nothing of keepalives."""


def read_timeout(url: URL) -> float:
    """Return the seconds that an answer may keep us waiting, as a URL says, or by default.

    Raises InvalidSetting for what is no number of seconds.
    """
    given = url.query.get(READ_TIMEOUT, ANSWER_WITHIN)
    try:
        seconds = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise InvalidSetting(
            f"scheduler.jobstore.default.url: {READ_TIMEOUT}={given!r}: expected a number of seconds"
        )
    return seconds
