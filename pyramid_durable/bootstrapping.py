"""Loading the application from its ini: commands, and the processes that run jobs (scripts, daemon)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyramid.paster import bootstrap, setup_logging

from .exceptions import InvalidSetting
from .interfaces import IScheduler


@dataclass(frozen=True, kw_only=True)
class Ini:
    """Where an application is loaded from: the URI of its ini, and the variables for it."""

    uri: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def absolute(self) -> Ini:
        """The same wherever a process begins."""
        path, hash, name = self.uri.partition("#")
        if Path(path).exists():
            path = str(Path(path).absolute())
        return Ini(uri=f"{path}{hash}{name}", variables=dict(self.variables))


def load_application(ini: Ini, script: str) -> Any:
    """Configure logging and the application; returns its registry.

    The application sees the command's name as ``__script__`` in its global settings, as with
    Pyramid's own scripts. Nothing of the request it was loaded with stays current.

    Raises InvalidSetting where it does not include pyramid_durable, and what it raises itself.
    """
    variables = {"__script__": script, **ini.variables}
    setup_logging(ini.uri, global_conf=variables)
    environment = bootstrap(ini.uri, options=variables)
    environment["closer"]()
    registry = environment["registry"]
    if registry.queryUtility(IScheduler) is None:
        raise InvalidSetting(
            f"{ini.uri}: this application does not include pyramid_durable "
            "(config.include('pyramid_durable'), or pyramid.includes in the ini)"
        )
    return registry
