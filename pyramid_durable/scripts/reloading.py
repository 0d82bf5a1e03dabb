"""pscheduler --reload: hupper watches the files and starts the command anew (scripts)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import hupper
from plaster import parse_uri
from pyramid.paster import get_appsettings

from ..settings import Settings
from ..supervisor import MARGIN
from ..times import parse_duration

COMMAND: Final = f"{__package__}.pscheduler"


def watch(config_uri: str) -> bool:
    """Watch the ini beside the code; False where nobody watches, and start_watched has to."""
    if not hupper.is_active():
        return False
    hupper.get_reloader().watch_files([parse_uri(config_uri).path])
    return True


def start_watched(config_uri: str, argv: Sequence[str]) -> int:
    """Run the command in a process that is replaced when a file changes, until it is to end.

    What it runs may finish each time, within ``scheduler.shutdown_timeout``. The exit code is the
    last process's.
    """
    try:
        hupper.start_reloader(
            f"{__name__}.run_watched",
            shutdown_interval=_patience(config_uri),
            worker_args=[list(argv)],
        )
    except SystemExit as ended:
        return int(ended.code or 0)
    raise AssertionError("hupper leaves by SystemExit")


def run_watched(argv: Sequence[str]) -> None:
    """The command in the process that hupper starts; its exit code is the process's."""
    main = import_module(COMMAND).main
    sys.exit(main(argv))


def _patience(config_uri: str) -> float:
    """How long a process may take to end; what is wrong with the ini that process will say."""
    timeout = Settings.shutdown_timeout
    try:
        given = get_appsettings(config_uri).get("scheduler.shutdown_timeout")
        timeout = parse_duration(given) if given else timeout
    except Exception:  # noqa: BLE001 - a file that is edited may be anything for a moment
        return timeout + MARGIN
    return timeout + MARGIN
