"""A store that neither answers nor closes: the cut-off daemon stops, others go on, and it comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pyramid.paster import bootstrap
from sqlalchemy import make_url

from tests.concurrent.proxy import Proxy

from .application import metadata, note_when
from .deployment import Deployment, database, deployed_on, wait_for
from .outages import APPLICATION, LIMITS, Book, Pump, check_exactly_once, wait_for_the_end

ANSWER = 2
"""Seconds that an answer, and a connection, may take in this test; 30 and 5 otherwise."""

NOTICED = 15.0
"""Seconds within which the daemon has to say so: an answer, a connection, and a busy machine."""

PORT = "store_port"


def by_port(app: Deployment, port: int) -> None:
    """Let each process reach the store by a port of its own, as an argument may say."""
    ini = app.ini.read_text()
    app.ini.write_text(ini.replace(f"127.0.0.1:{port}/", f"127.0.0.1:%({PORT})s/"))
    app.variables = {PORT: str(port)}


@pytest.mark.outage
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_store_that_says_nothing(tmp_path: Path, kind: str) -> None:
    with database(kind, tmp_path) as plain:
        url = make_url(plain)
        port = url.port or {"postgresql": 5432, "mariadb": 3306}[kind]
        url = url.set(host="127.0.0.1", port=port)
        limits = {"read_timeout": str(ANSWER), "connect_timeout": str(ANSWER)}
        store = url.update_query_dict(limits).render_as_string(hide_password=False)
        proxy = Proxy("127.0.0.1", port)
        with deployed_on(
            tmp_path,
            APPLICATION,
            url.render_as_string(hide_password=False),
            f"filesystem://{tmp_path / 'broker'}",
            scheduler__jobstore__default__url=store,
            **LIMITS,
        ) as app:
            by_port(app, port)
            metadata.create_all(app.engine)
            assert app.run("pscheduler", "--migrate") == 0
            try:
                live_through_it(app, proxy, tmp_path / "gate")
            finally:
                proxy.close()


def live_through_it(app: Deployment, proxy: Proxy, gate: Path) -> None:
    deaf = app.start("pscheduler", f"{PORT}={proxy.port}", name="deaf")
    said = Book(app, deaf)
    said.waits("daemon started")
    with bootstrap(str(app.ini), options=app.variables) as environment:
        id = environment["registry"].scheduler.add_async_job(note_when, args=[0, str(gate)])
    wait_for("the job to wait", Path(f"{gate}.waits").exists)
    healthy = app.start("pscheduler", name="healthy")
    Book(app, healthy).waits("daemon started")
    with Pump(app, nap_every=0) as pump:
        pump.goes_on()
        said.turn_over()
        proxy.swallow()
        began = time.monotonic()
        said.waits("the lease cannot be renewed", NOTICED)
        noticed = time.monotonic() - began
        Book(app, healthy).waits(f"job {id}: its daemon is gone")
        # It is run here now, and there its end is too late.
        gate.touch()
        wait_for("the job's end", lambda: state_of(app, id) == "succeeded")
        pump.goes_on()
        proxy.heal()
        said.waits("this daemon was declared dead")
        said.waits("the lease is renewed again")
    assert app.processes[deaf].poll() is None
    wait_for_the_end(app)
    assert app.stop(healthy) == 0
    with Pump(app, nap_every=0) as again:
        again.goes_on()
    wait_for_the_end(app)
    assert app.stop(deaf) == 0
    check_exactly_once(app, [id, *pump.asked, *again.asked])
    lines = said.own()
    waits = [line for line in lines if "the lease cannot be renewed" in line]
    assert len(waits) == 1
    assert "the database of the store" in waits[0]
    assert len(lines) < 25, "a flood:\n" + "\n".join(lines)
    assert noticed < NOTICED


def state_of(app: Deployment, id: str) -> str:
    ((state,),) = app.ask(f"SELECT state FROM durable_job WHERE id = '{id}'")
    return str(state)
