"""The harness can fail: a store without the fence is seen through, with the fence it is not."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from pyramid.paster import get_app
from pyramid.scripting import prepare

from pyramid_durable.store.completions import Completions
from tests.processes.deployment import wait_for

from . import application, laws
from .book import COMMITTED, Book, Entry
from .chaos import LIMITS
from .checker import check
from .cluster import Cluster, cluster
from .evidence import Evidence
from .reading import read_evidence

NAP = 2.0
"""Seconds: long enough to freeze the daemon meanwhile, short enough to end soon after."""


@pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "unfenced"])
def test_a_daemon_that_comes_back_from_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    # This process loads the application too, to ask for the job: the law is mended at the end.
    monkeypatch.setattr(Completions, "write", Completions.write)
    settings = {"chaos.schedules": "false", "chaos.unfenced": str(not fenced).lower()}
    place = cluster(tmp_path, "postgresql", "redis", seed="0", daemons=2, settings=settings)
    with place as stage:
        evidence = freeze_and_thaw(stage)
    rules = {violation.rule for violation in check(evidence).violations}
    assert rules == (set() if fenced else {laws.TWICE})


def freeze_and_thaw(stage: Cluster) -> Evidence:
    """A job's daemon is frozen until another has done its work, and goes on then."""
    place, (first, second) = stage.place, stage.daemons
    stage.start(first)
    wait_for("the first daemon", lambda: "daemon started" in place.log(first.process))
    ask_for_a_nap(stage)
    wait_for("the job to run", lambda: place.ask(RUNNING) == [(1,)])
    stage.send(first, signal.SIGSTOP)
    stage.start(second)
    wait_for("the other daemon's effect", lambda: place.ask(EFFECTS) == [(1,)])
    stage.send(first, signal.SIGCONT)
    wait_for("the first daemon's last word", lambda: has_finished(stage, first.process))
    for slot in stage.daemons:
        assert stage.stop(slot) == 0
    return read_evidence(
        place.engine,
        stage.folder,
        schedules=(),
        limits=LIMITS,
        losses=[],
        faults=[],
        left=[],
        dark=[],
        exits=[],
        read_at=time.time(),
    )


RUNNING = "SELECT count(*) FROM durable_job WHERE state = 'running'"
EFFECTS = "SELECT count(*) FROM effect"


def has_finished(stage: Cluster, process: str) -> bool:
    """It has written a second effect, or said that it was not its to write."""
    said = stage.place.log(process)
    return stage.place.ask(EFFECTS) == [(2,)] or "was lost" in said


def ask_for_a_nap(stage: Cluster) -> None:
    entry = Entry(key="nap", kind="nap")
    registry = get_app(str(stage.place.ini), options=stage.place.variables).registry
    with Book(stage.folder / "test.book") as book, prepare(registry=registry) as env:
        request = env["request"]
        book.asking([entry])
        with request.tm:
            id = request.scheduler.add_async_job(application.nap, args=[NAP, False], name=entry.key)
            row = {"asked_key": entry.key, "job": id}
            request.dbsession.execute(application.asked.insert().values(row))
        book.told([entry], COMMITTED)
    registry.scheduler.shutdown()
