"""The first version of what a rolling deploy replaces; see rolling.py."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator

from pyramid_durable import job
from tests.processes.rolling import note


@job(pass_request=True)
def tick(request: Any) -> None:
    """Do nothing, every half second."""


@job(pass_request=True)
def send(request: Any, number: int) -> None:
    note(request, number)


@job(pass_request=True)
def old_report(request: Any, number: int) -> None:
    note(request, number)


def includeme(config: Configurator) -> None:
    config.add_interval_job("often", tick, seconds=0.5)
    config.add_cron_job("nightly", send, crontab="0 3 * * *", args=[0])
    config.add_cron_job("old", old_report, crontab="0 3 * * *", args=[0])
