"""What a database's errors mean: that it is away, that others are in the way, or neither (both)."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError

AWAY_STATES: Final = ("08", "57P", "53", "58", "28", "3D", "25006", "25P03")
"""Beginnings of PostgreSQL's SQLSTATEs: connections, shutdown and start, resources (disk, memory,
connections), its machine, who may connect, to what, read-only, and a transaction idle for too long."""

REFUSED_STATES: Final = ("53100", "25006")
REFUSED_NUMBERS: Final = frozenset((1021, 1114, 1290, 1792, 1836))
REFUSED_TEXTS: Final = ("disk is full", "disk i/o error", "readonly database")
"""A disk that is full, and a server that is read-only."""

BUSY_STATES: Final = ("40", "55P03", "57014")
"""Deadlocks, and waits that were given up."""

AWAY_NUMBERS: Final = frozenset(
    (
        *(1040, 1042, 1043, 1044, 1045, 1047, 1049, 1053),  # no connection to be had
        *(1077, 1078, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184),  # ended, or cut
        *(1290, 1792, 1836, 1874),  # read-only
        *(3, 1020, 1021, 1026, 1030, 1037, 1038, 1041, 1114),  # disk and memory
        *(1129, 1203, 1226, 1927, 1969, 4031),  # refused, or ended by the server
        *(2002, 2003, 2005, 2006, 2012, 2013, 2014, 2026, 2055),  # what its clients say
    )
)
"""Of MariaDB and MySQL."""

BUSY_NUMBERS: Final = frozenset((1205, 1213, 1412, 1689))

AWAY_TEXTS: Final = (
    "disk is full",
    "disk i/o error",
    "readonly database",
    "unable to open",
)
"""In what SQLite says; before Python 3.11 its errors have no codes."""

BUSY_TEXTS: Final = ("is locked",)


def is_outage(error: DBAPIError) -> bool:
    """Tell whether the same statement may well succeed later: the database is away, or busy."""
    return is_away(error) or _is_one_of(error, BUSY_STATES, BUSY_NUMBERS, BUSY_TEXTS)


def is_away(error: DBAPIError) -> bool:
    """Tell whether the database is gone, going, full or read-only: no statement is to blame."""
    if error.connection_invalidated:
        return True
    return _is_one_of(error, AWAY_STATES, AWAY_NUMBERS, AWAY_TEXTS)


def refuses_to_write(error: BaseException | None) -> bool:
    """Tell whether the database says itself that it has no room, or is read-only.

    Then neither a statement nor a lost connection can have brought it about.
    """
    return isinstance(error, DBAPIError) and _is_one_of(
        error, REFUSED_STATES, REFUSED_NUMBERS, REFUSED_TEXTS
    )


def is_lock_timeout(error: DBAPIError) -> bool:
    """Tell whether a statement waited for another transaction until its time was up."""
    return _is_one_of(error, ("55P03",), frozenset((1205,)), ())


def deadlock_behind(error: BaseException | None) -> DBAPIError | None:
    """Return MariaDB's deadlock that an error is, or during whose handling it was raised."""
    while error is not None:
        if isinstance(error, DBAPIError) and _is_one_of(error, (), frozenset((1213,)), ()):
            return error
        error = error.__context__
    return None


def _is_one_of(
    error: DBAPIError, states: tuple[str, ...], numbers: frozenset[int], texts: tuple[str, ...]
) -> bool:
    found = error.orig
    names = {base.__name__ for base in type(found).__mro__}
    if not names & {"OperationalError", "InterfaceError", "InternalError"}:
        return False
    if type(found).__module__.partition(".")[0] == "sqlite3":
        return any(text in str(found).lower() for text in texts)
    number = found.args[0] if found is not None and found.args else None
    if isinstance(number, int):
        # 0 is PyMySQL's own: the connection is closed.
        return number in numbers if number else states is AWAY_STATES
    state = getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)
    # Without one the server never answered: it is the client that complains.
    return str(state).startswith(states) if state else states is AWAY_STATES
