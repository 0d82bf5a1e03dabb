"""What the decorators have in common: the options they take, the aliases they tell (both)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import venusian

from .definitions import Definition
from .exceptions import InvalidJob
from .references import import_name

CATEGORY: Final = "pyramid"
"""What ``config.scan()`` looks for where it is not told otherwise."""

JOB_OPTIONS: Final = frozenset(
    (
        "queue",
        "name",
        "priority",
        "expires",
        "misfire_grace_time",
        "max_attempts",
        "backoff",
        "timeout",
        "executor",
        "behavior",
        "group",
        "userdata",
        "working_dir",
        "delete_after",
    )
)
"""Options that make sense as a default for every job of a definition."""

SCHEDULE_OPTIONS: Final = frozenset(
    (
        "end_date",
        "iterations",
        "run_immediately",
        "jitter",
        "coalesce",
        "max_instances",
        "allow_overlap",
        "timezone",
    )
)
"""Options that make sense as a default for every schedule of a definition."""


def check_options(decorator: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError where an option is no default of jobs or schedules."""
    known = JOB_OPTIONS | SCHEDULE_OPTIONS
    unknown = sorted(set(options) - known)
    if unknown:
        raise TypeError(
            f"{decorator} got an unknown option {unknown[0]!r}; there are: {', '.join(sorted(known))}"
        )


def check_own_id(verb: str, options: Mapping[str, Any]) -> None:
    """Raise TypeError for options with which one declaration could quietly take another's id."""
    for option in ("id", "replace_existing"):
        if option in options:
            raise TypeError(
                f"{verb} got the option {option!r}: the id of a declared schedule is its name, and "
                "two of one name are a configuration conflict"
            )


def read_aliases(decorator: str, aliases: Any) -> tuple[str, ...]:
    """The aliases as a tuple. Raises InvalidJob for what are no names."""
    if isinstance(aliases, str) or not all(isinstance(alias, str) for alias in aliases):
        raise InvalidJob(f"{decorator}: aliases {aliases!r}: expected a list of names")
    return tuple(aliases)


def tell_aliases(target: Any, definition: Definition, *, depth: int = 2) -> None:
    """Let ``config.scan()`` tell the application the names a definition had before.

    ``depth`` is the number of calls up to the code that says where the definition is at home.
    """
    if not definition.aliases:
        return

    def tell(context: Any, name: str, found: Any) -> None:
        for alias in definition.aliases:
            context.config.add_job_alias(alias, import_name(definition.ref), _info=info.codeinfo)

    info = venusian.attach(target, tell, category=CATEGORY, depth=depth)
