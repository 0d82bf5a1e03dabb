"""The version that comes next: one function is renamed, one is gone, and one is new."""

from __future__ import annotations

from typing import Any

from pyramid.config import Configurator

from pyramid_durable import job
from tests.processes.rolling import note


@job(pass_request=True)
def tick(request: Any) -> None:
    """Do nothing, every half second."""


@job(pass_request=True, aliases=["shop:send"])
def deliver(request: Any, number: int) -> None:
    note(request, number)


@job(pass_request=True)
def new_report(request: Any, number: int) -> None:
    note(request, number)


def includeme(config: Configurator) -> None:
    config.add_interval_job("often", tick, seconds=0.5)
    config.add_cron_job("nightly", deliver, crontab="0 5 * * *", args=[0])
    config.add_cron_job("new", new_report, crontab="0 3 * * *", args=[0])
