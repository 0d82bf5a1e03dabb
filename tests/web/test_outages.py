"""A broker or a store that is away, forks, and threads that come first together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyramid_durable.exceptions import SchemaMismatch, StoreUnavailable
from tests.web.jobs import charge
from tests.web.site import Site, make_site

MakeSite = Callable[..., Site]
NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize("url", [f"amqp://u:hush@{NOBODY}//", f"redis://:hush@{NOBODY}/0"])
def test_a_broker_that_is_away_fails_no_request(
    site: MakeSite, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = site(settings={"scheduler.broker.url": url})
    del here.scheduler.broker.announce  # the real one again
    started = time.monotonic()
    here.get(lambda request: request.scheduler.add_async_job(charge))
    here.get(lambda request: request.scheduler.add_async_job(charge))
    assert time.monotonic() - started < 2
    assert len(here.jobs()) == 2
    assert "hush" not in caplog.text


def test_a_store_that_is_away_is_a_clear_error(site: MakeSite, tmp_path: Any) -> None:
    here = site()
    url = f"postgresql+psycopg://u:hush@{NOBODY}/none?connect_timeout=2"
    away = make_site(
        store=here.store,
        app_url=f"sqlite:///{tmp_path / 'app.db'}",
        settings={"scheduler.jobstore.default.url": url},
    )
    with pytest.raises(StoreUnavailable, match=NOBODY.replace(":", ".*")) as caught:
        away.scheduler.add_async_job(charge)
    assert "hush" not in str(caught.value)
    with pytest.raises(StoreUnavailable):
        away.get(lambda request: request.scheduler.add_async_job(charge))


def test_missing_tables_are_a_clear_error_until_they_are_there(site: MakeSite) -> None:
    here = site(
        settings={
            "scheduler.jobstore.default.prefix": "none_",
            "scheduler.jobstore.default.create": "false",
        }
    )
    with pytest.raises(SchemaMismatch, match=r"pscheduler.*--migrate"):
        here.scheduler.add_async_job(charge)


def test_a_forked_process_has_connections_of_its_own(site: MakeSite) -> None:
    here = site()
    here.scheduler.add_async_job(charge)
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        code = 1
        try:
            here.scheduler.broker.announce = lambda queues: None  # type: ignore[method-assign]
            here.scheduler.add_async_job(charge)
            here.get(lambda request: None)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    # The parent's connections have survived the child's end.
    here.scheduler.add_async_job(charge)
    assert len(here.jobs()) == 3


def test_threads_that_come_first_together(site: MakeSite) -> None:
    here = site(session=None)
    stores: list[Any] = []
    at_once = threading.Barrier(8)

    def ask() -> None:
        at_once.wait(10)
        stores.append(here.scheduler.store)
        here.scheduler.add_async_job(charge)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({id(store) for store in stores}) == 1
    assert len(here.jobs()) == 8
