"""pscheduler and pjobs as real processes, spawned, signalled and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from pyramid.paster import get_app
from sqlalchemy import create_engine, text
from webtest import TestApp

from pyramid_durable.scripts import pjobs, pscheduler, showing, supervising
from tests.processes.application import ask_for_it_again, metadata, nap, nothing
from tests.processes.deployment import ROOT, deployed, wait_for
from tests.services import service_url

from . import jobs

APPLICATION = "tests.processes.application:main"
QUICK = {"scheduler.heartbeat": "0.5s", "scheduler.lease": "3s", "scheduler.poll_interval": "0.5s"}


@contextlib.contextmanager
def site(folder, store="sqlite", broker="embedded", **settings):
    """A deployed application whose web part is in this process: (deployment, WebTest, scheduler)."""
    names = {name.replace("__", "."): value for name, value in settings.items()}
    with deployed(folder, APPLICATION, store, broker, **{**QUICK, **names}) as made:
        metadata.create_all(made.engine)
        assert made.run("pscheduler", "--migrate") == 0
        app = get_app(str(made.ini))
        scheduler = app.registry.scheduler
        yield made, TestApp(app), scheduler
        scheduler.broker.close()
        scheduler.store.dispose()


def is_up(made, name):
    return "daemon started" in made.log(name)


@pytest.mark.parametrize(
    ("store", "broker"),
    [("sqlite", "embedded"), ("postgresql", "amqp"), ("postgresql", "redis"), ("mariadb", "redis")],
)
def test_what_a_form_asks_for_is_done_once_and_at_once(tmp_path, store, broker):
    # Polling alone would find the job too, but not within this test's patience.
    with site(tmp_path, store, broker, scheduler__poll_interval="60s") as (
        made,
        browser,
        scheduler,
    ):
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: "listening to" in made.log(name))
        id = browser.post("/ask", {"number": "7"}).text
        wait_for("the row", lambda: made.ask("SELECT number, job FROM ran") == [(7, id)], 20)
        wait_for("the end", lambda: scheduler.get_job(id).state == "succeeded")
        assert made.ask("SELECT number FROM asked") == [(7,)]
        browser.post("/ask", {"number": "8", "fail": "1"}, status=500)
        assert made.stop(name) == 0
        assert [job.id for job in scheduler.get_jobs()] == [id]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_what_is_running_end_and_sighup_may_follow(tmp_path, number):
    with site(tmp_path, scheduler__threads="1") as (made, _, scheduler):
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: is_up(made, name))
        running = scheduler.add_async_job(nap, args=[1.0])
        wait_for("the start", lambda: scheduler.get_job(running).state == "running")
        waiting = scheduler.add_async_job(nothing)
        made.send(name, number)
        wait_for("the signal", lambda: "daemon stopping" in made.log(name))
        assert made.stop(name, signal.SIGHUP) == 0
        assert scheduler.get_job(running).state == "succeeded"
        assert scheduler.get_job(waiting).state in ("scheduled", "succeeded")
        assert "daemon stopped" in made.log(name)
        with scheduler.store.read() as connection:
            assert scheduler.store.daemons.list(connection) == []


def test_it_stops_by_sigint_where_a_shell_has_it_ignored_but_nohup_keeps_sighup(monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    assert supervising.stop_signals() == [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries_and_the_job_runs_again(tmp_path, number):
    with site(tmp_path) as (made, _, scheduler):
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: is_up(made, name))
        id = scheduler.add_async_job(nap, args=[60.0])
        wait_for("the start", lambda: scheduler.get_job(id).state == "running")
        made.processes[name].send_signal(signal.SIGTERM)
        wait_for("the first", lambda: "daemon stopping" in made.log(name))
        assert made.stop(name, number) == 0
        job = scheduler.get_job(id)
        assert (job.state, job.attempt) == ("scheduled", 0)


def test_a_killed_daemons_work_is_taken_over_within_the_lease(tmp_path):
    with site(tmp_path, "postgresql", "redis") as (made, _, scheduler):
        first = made.start("pscheduler")
        wait_for("the daemon", lambda: is_up(made, first))
        id = scheduler.add_async_job(nap, args=[2.0])
        wait_for("the start", lambda: scheduler.get_job(id).state == "running")
        made.processes[first].send_signal(signal.SIGKILL)
        second = made.start("pscheduler")
        wait_for("the rescue", lambda: scheduler.get_job(id).state == "succeeded", 20)
        assert f"job {id}: its daemon is gone" in made.log(second)
        assert scheduler.get_job(id).attempt == 1


def test_a_job_that_kills_its_daemons_ends_as_failed_and_takes_nobody_along(tmp_path):
    fast = {"scheduler__lease": "1s", "scheduler__heartbeat": "0.2s", "scheduler__threads": "3"}
    with site(tmp_path, "postgresql", "redis", **fast) as (made, _, scheduler):
        others = [scheduler.add_async_job(nap, args=[0.3]) for _ in range(6)]
        killer = scheduler.add_async_job(jobs.die, priority=0)
        for _ in range(3):
            name = made.start("pscheduler")
            assert made.processes[name].wait(30) == 9
        name = made.start("pscheduler")
        wait_for("the end", lambda: scheduler.get_job(killer).state == "failed", 20)
        assert "poison_limit" in scheduler.get_job(killer).error
        # In one question: what waits behind others is given back, and is scheduled once more.
        alive = ("scheduled", "running")
        wait_for("the others", lambda: scheduler.get_jobs(state=alive) == [], 20)
        ends = [scheduler.get_job(id) for id in others]
        assert {(job.state, job.attempt) for job in ends} == {("succeeded", 1)}
        assert made.stop(name) == 0


def test_a_frozen_daemon_finds_its_work_gone_and_goes_on(tmp_path):
    with site(tmp_path, "postgresql", "redis") as (made, browser, scheduler):
        first = made.start("pscheduler")
        wait_for("the daemon", lambda: is_up(made, first))
        id = scheduler.add_async_job(nap, args=[2.0])
        wait_for("the start", lambda: scheduler.get_job(id).state == "running")
        made.processes[first].send_signal(signal.SIGSTOP)
        second = made.start("pscheduler")
        wait_for("the rescue", lambda: "its daemon is gone" in made.log(second), 20)
        wait_for("the other's run", lambda: scheduler.get_job(id).state == "succeeded", 20)
        made.processes[first].send_signal(signal.SIGCONT)
        wait_for("its notice", lambda: "declared dead" in made.log(first), 20)
        assert made.stop(second) == 0
        again = browser.post("/ask", {"number": "1"}).text
        wait_for("a job on the first", lambda: scheduler.get_job(again).state == "succeeded", 20)
        assert scheduler.get_job(id).attempt == 1


@contextlib.contextmanager
def outage(made):
    """Nobody gets into the database of the deployment, and who is in is thrown out."""
    name = made.engine.url.database
    made.engine.dispose()
    server = create_engine(service_url("postgresql"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        out = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        connection.execute(text(out), {"name": name})
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    server.dispose()


def test_an_outage_of_the_store_is_waited_out(tmp_path):
    with site(tmp_path, "postgresql", "redis", scheduler__lease="30s") as (made, _, scheduler):
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: is_up(made, name))
        during = scheduler.add_async_job(nap, args=[1.5])
        wait_for("the start", lambda: scheduler.get_job(during).state == "running")
        with outage(made):
            wait_for("the claim to fail", lambda: "waiting for the store" in made.log(name))
            wait_for("the beat to fail", lambda: "cannot be renewed" in made.log(name))
            wait_for("the end to wait", lambda: "ends of jobs wait" in made.log(name))
        wait_for("the end", lambda: scheduler.get_job(during).state == "succeeded", 30)
        after = scheduler.add_async_job(nothing)
        wait_for("a new job", lambda: scheduler.get_job(after).state == "succeeded", 30)
        log = made.log(name)
        assert log.count("waiting for the store") == 1
        assert "Traceback" not in log
        assert scheduler.get_job(during).attempt == 1
        assert made.stop(name) == 0


def test_a_store_that_cannot_be_reached_is_one_clear_line(tmp_path, capfd):
    ini = tmp_path / "away.ini"
    ini.write_text(
        f"[app:main]\nuse = call:{APPLICATION}\n"
        "sqlalchemy.url = postgresql+psycopg://postgres@127.0.0.1:9/none\n"
        "scheduler.broker.url = memory://\n"
    )
    assert pscheduler.main([str(ini)]) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("pscheduler: ")
    assert "store postgresql+psycopg://postgres@127.0.0.1:9/none" in line


def test_a_schema_that_is_missing_says_what_to_run(tmp_path):
    with deployed(tmp_path, APPLICATION, "postgresql", "redis") as made:
        name = made.start("pscheduler")
        assert made.processes[name].wait(60) == 1
        assert "--migrate" in made.log(name)


def test_a_broker_that_cannot_be_reached_stops_no_daemon(tmp_path):
    away = {"scheduler__broker__url": "amqp://guest:guest@127.0.0.1:9//"}
    with site(tmp_path, **away) as (made, browser, scheduler):
        name = made.start("pscheduler")
        id = browser.post("/ask", {"number": "1"}).text
        wait_for("the job", lambda: scheduler.get_job(id).state == "succeeded")
        assert made.stop(name) == 0


def test_once_runs_what_is_due_and_leaves(tmp_path):
    with site(tmp_path) as (made, _, scheduler):
        now = scheduler.add_async_job(nothing)
        later = scheduler.add_date_job(nothing, "1h")
        assert made.run("pscheduler", "--once") == 0
        assert scheduler.get_job(now).state == "succeeded"
        assert scheduler.get_job(later).state == "scheduled"
        wrong = scheduler.add_async_job(nap, args=["not a number"])
        assert made.run("pscheduler", "--once") == 1
        assert scheduler.get_job(wrong).state == "failed"
        scheduler.add_async_job(nap, args=["not a number"])
        assert made.run("pscheduler", "--once", "-i", "-d") == 0
        with scheduler.store.read() as connection:
            assert scheduler.store.daemons.list(connection) == []


def test_once_shows_the_traceback_of_a_job_whose_error_is_one_of_ours(tmp_path, capsys):
    with site(tmp_path) as (made, _, scheduler):
        scheduler.add_async_job(ask_for_it_again)
        assert pscheduler.main([str(made.ini), "--once"]) == 1
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert "in ask_for_it_again" in said


def test_a_message_reaches_the_daemon(tmp_path):
    with site(tmp_path) as (made, _, _):
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: "listening to" in made.log(name))
        assert made.run("pscheduler", "--message", "hello there") == 0
        wait_for("the message", lambda: "hello there" in made.log(name))


def test_the_message_print_jobs_logs_what_waits(tmp_path):
    with site(tmp_path) as (made, _, scheduler):
        scheduler.add_date_job(nothing, "1h", name="an hour from now")
        name = made.start("pscheduler")
        wait_for("the daemon", lambda: "listening to" in made.log(name))
        assert pscheduler.main([str(made.ini), "--message", "print-jobs"]) == 0
        wait_for("the jobs", lambda: "an hour from now (trigger: date" in made.log(name))


@pytest.mark.parametrize(
    "arguments", [[], ["x.ini", "--threads", "0"], ["x.ini", "-d"], ["x.ini", "novalue"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        pscheduler.main(arguments)
    assert ended.value.code == 2
    assert "usage: pscheduler" in capsys.readouterr().err


@pytest.mark.parametrize("script", [pscheduler, pjobs])
def test_a_missing_file_is_one_line(script, capsys):
    arguments = ["missing.ini"] if script is pscheduler else ["missing.ini", "list"]
    assert script.main(arguments) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "missing.ini" in line


def test_a_queue_that_is_not_configured_is_refused(tmp_path):
    with site(tmp_path) as (made, _, _):
        name = made.start("pscheduler", "-q", "nope")
        assert made.processes[name].wait(60) == 1
        assert "queue 'nope' is not among the configured ones" in made.log(name)


def test_pjobs_shows_and_cancels(tmp_path, capsys):
    with site(tmp_path) as (made, _, scheduler):
        id = scheduler.add_date_job(nothing, "1h", name="an hour from now")
        nightly = scheduler.add_cron_job(nothing, crontab="0 3 * * *", id="nightly")

        def show(*arguments):
            code = pjobs.main([str(made.ini), *arguments])
            return code, capsys.readouterr()

        code, said = show("list")
        assert (code, id in said.out, "an hour from now" in said.out) == (0, True, True)
        assert id not in show("list", "-s", "failed")[1].out
        assert "tests.processes.application:nothing" in show("show", id)[1].out
        assert nightly in show("schedules")[1].out
        assert "default" in show("queues")[1].out
        assert "scheduled  1" in show("stats")[1].out
        assert "DAEMON" in show("daemons")[1].out
        assert show("cancel", id)[0] == 0
        assert scheduler.get_job(id).state == "cancelled"
        code, said = show("cancel", id)
        assert code == 1
        assert len(said.err.strip().splitlines()) == 1
        assert show("cancel", "nightly")[0] == 0
        assert show("show", "unknown")[0] == 1


@pytest.fixture
def shell(capsys):
    """Call pjobs in this process; returns its exit code and what it said."""

    def call(made, *arguments):
        code = pjobs.main([str(made.ini), *arguments])
        return code, capsys.readouterr()

    return call


def test_pjobs_changes_jobs_and_schedules(tmp_path, shell):
    with site(tmp_path) as (made, _, scheduler):
        job = scheduler.add_date_job(nothing, "1h", id="job")
        scheduler.add_cron_job(nothing, crontab="0 3 * * *", id="nightly")
        for id in ("job", "nightly"):
            assert shell(made, "pause", id)[1].out == f"{id} paused.\n"
            code, said = shell(made, "pause", id)
            assert (code, said.err) == (1, f"pjobs: there is nothing to pause by the id '{id}'\n")
        assert scheduler.get_job(job).paused
        assert shell(made, "list")[1].out.count(" paused ") == 1
        assert "paused" in shell(made, "schedules")[1].out
        assert "crontab" in shell(made, "show", "nightly")[1].out
        for id in ("job", "nightly"):
            assert shell(made, "resume", id)[0] == 0
        assert shell(made, "run", "job")[0] == 0
        assert shell(made, "run", "nightly")[0] == 0
        assert len(scheduler.get_jobs(schedule_id="nightly")) == 1
        scheduler.cancel_job("job")
        assert shell(made, "retry", "job")[1].out == "job waits again.\n"
        assert scheduler.get_job("job").state == "scheduled"
        for id in ("job", "nightly"):
            assert shell(made, "remove", id)[1].out == f"{id} removed.\n"
            assert shell(made, "remove", id)[0] == 1
        assert scheduler.get_job("job") is scheduler.get_schedule("nightly") is None


def test_pjobs_pauses_queues_and_refuses_what_it_does_not_know(tmp_path, shell, capsys):
    with site(tmp_path) as (made, _, scheduler):
        scheduler.add_async_job(nothing)
        assert shell(made, "pause", "-q", "default", "some=variable")[0] == 0
        assert shell(made, "pause", "-q", "default")[0] == 1
        assert "paused     default" in shell(made, "stats")[1].out
        assert scheduler.run_due() == []
        assert shell(made, "resume", "-q", "default")[1].out == "queue default resumed.\n"
        assert shell(made, "resume", "-q", "default")[0] == 1
        assert "oldest due -" not in shell(made, "stats")[1].out
        for arguments in (
            *(("list", "-q", "nope"), ("export", "-q", "nope"), ("schedules", "-q", "nope")),
            *(("pause", "-q", "nope"), ("resume", "-q", "nope")),
        ):
            code, said = shell(made, *arguments)
            (line,) = said.err.strip().splitlines()
            assert (code, said.out, "'nope'" in line) == (1, "", True), arguments
        for arguments in (["pause"], ["pause", "-q", "default", "id"]):
            with pytest.raises(SystemExit) as stopped:
                pjobs.main([str(made.ini), *arguments])
            assert stopped.value.code == 2


def test_pjobs_exports_all_that_matches_page_by_page(tmp_path, shell, monkeypatch):
    monkeypatch.setattr(showing, "PAGE", 3)
    with site(tmp_path) as (made, _, scheduler):
        ids = scheduler.add_jobs(
            [{"func": nothing, "args": [{1, 2}], "userdata": {"n": number}} for number in range(7)]
        )
        scheduler.cancel_job(ids[0])
        code, said = shell(made, "export")
        found = [json.loads(line) for line in said.out.splitlines()]
        assert (code, [job["id"] for job in found]) == (0, ids[::-1])
        assert found[0]["userdata"] == {"n": 6}
        assert datetime.fromisoformat(found[0]["run_at"]).tzinfo is not None
        (cancelled,) = shell(made, "export", "-s", "cancelled")[1].out.splitlines()
        assert json.loads(cancelled)["id"] == ids[0]


def test_a_reader_that_has_seen_enough_is_no_failure(tmp_path):
    with site(tmp_path) as (made, _, scheduler):
        scheduler.add_async_job(nothing)
        command = [sys.executable, "-m", "pyramid_durable.scripts.pjobs", str(made.ini), "export"]
        reading, writing = os.pipe()
        os.close(reading)
        try:
            ended = subprocess.run(
                command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
            )
        finally:
            os.close(writing)
        assert (ended.returncode, "Broken" in ended.stderr) == (0, False), ended.stderr


def test_combined_mode_does_not_start_under_the_commands(tmp_path: Path):
    with site(tmp_path, scheduler__combined="true") as (made, _, scheduler):
        assert made.run("pjobs", "list") == 0
        assert made.run("pscheduler", "--once") == 0
        with scheduler.store.read() as connection:
            assert scheduler.store.daemons.list(connection) == []
