"""What the commands share: their first arguments, loading the application, how errors end them."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from pyramid.exceptions import ConfigurationError, ConfigurationExecutionError

from ..bootstrapping import Ini, load_application
from ..exceptions import DurableError

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130
"""What shells give a command that Ctrl-C has ended."""


class CommandFailed(Exception):
    """Raised to end a command with one line on stderr and exit code 1."""


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that Pyramid's own scripts begin with."""
    parser.add_argument(
        "config_uri", help="the URI to the configuration file, ini#name for one app"
    )


def add_config_vars(parser: argparse.ArgumentParser) -> None:
    """The ``key=value`` arguments, for the ini's own %(key)s."""
    parser.add_argument(
        "config_vars",
        nargs="*",
        default=(),
        metavar="key=value",
        help="variables for the configuration file",
    )


def parse_vars(parser: argparse.ArgumentParser, texts: Sequence[str]) -> dict[str, str]:
    """Read ``key=value`` arguments; anything else is wrong usage."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            parser.error(f"{text!r}: expected key=value")
        pairs[key] = value
    return pairs


def load_registry(config_uri: str, config_vars: dict[str, str], script: str) -> Any:
    """Load the application under the command's name; see load_application."""
    return load_application(Ini(uri=config_uri, variables=config_vars), script)


def run_command(name: str, command: Callable[[], int]) -> int:
    """Run a command; what fails is told in one line on stderr. Returns the exit code."""
    try:
        code = command()
        # Here, where a reader that has left can still be told from a failure.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever reads has seen enough, as with ``| head``. What is left is flushed when Python
        # ends, and must not complain.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except ConfigurationExecutionError as error:
        return _failed(name, error.evalue)
    except (CommandFailed, DurableError, ConfigurationError, OSError, LookupError) as error:
        return _failed(name, error)


def _failed(name: str, error: BaseException) -> int:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"{name}: {text}", file=sys.stderr)
    return FAILED
