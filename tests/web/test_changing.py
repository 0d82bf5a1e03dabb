"""The verbs that change and look, as views call them: part of the request's transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pyramid_durable.exceptions import DuplicateJob, InvalidJob, InvalidQueue
from pyramid_durable.records import JobInfo, ScheduleInfo
from pyramid_durable.store import DaemonInfo
from tests.web.jobs import charge, report
from tests.web.site import Rental, Site

MakeSite = Callable[..., Site]
FAR = datetime(2033, 1, 1, tzinfo=timezone.utc)

APPLICATIONS = [
    pytest.param({"tm": tm, "session": session, "where": where}, id=f"{tm}-{session}-{where}")
    for tm, session, where in (
        ("explicit", "zope", "same"),
        ("thread", "zope", "other"),
        ("explicit", None, "same"),
    )
]


class ViewError(Exception):
    """What a view raises."""


def job(site: Site, id: str) -> JobInfo:
    found = site.scheduler.get_job(id)
    assert found is not None
    return found


def schedule(site: Site, id: str) -> ScheduleInfo:
    found = site.scheduler.get_schedule(id)
    assert found is not None
    return found


def prepared(site: Site) -> None:
    """What there is to change: jobs in several states, and schedules."""
    scheduler = site.scheduler
    jobs = ("pause", "resume", "remove", "modify", "cancelled", "waits")
    scheduler.add_jobs(
        [
            *({"func": charge, "args": [1], "id": id} for id in jobs),
            *({"func": charge, "date": FAR, "id": id} for id in ("run", "reschedule", "later")),
            *(
                {"func": charge, "minutes": 5, "id": f"s-{id}"}
                for id in ("pause", "resume", "run", "remove", "modify", "reschedule")
            ),
        ]
    )
    assert scheduler.pause_job("resume")
    assert scheduler.cancel_job("cancelled")
    assert scheduler.pause_job("s-resume")
    assert scheduler.pause_queue("mail")
    site.announced.clear()


CHANGES: dict[str, Callable[[Any], bool]] = {
    "pause": lambda scheduler: scheduler.pause_job("pause"),
    "resume": lambda scheduler: scheduler.resume_job("resume"),
    "run": lambda scheduler: scheduler.run_job("run"),
    "retry": lambda scheduler: scheduler.retry_job("cancelled"),
    "remove": lambda scheduler: scheduler.remove_job("remove"),
    "modify": lambda scheduler: scheduler.modify_job("modify", priority=1, args=[7]),
    "reschedule": lambda scheduler: scheduler.reschedule_job("reschedule", "5d"),
    "pause schedule": lambda scheduler: scheduler.pause_job("s-pause"),
    "resume schedule": lambda scheduler: scheduler.resume_job("s-resume"),
    "run schedule": lambda scheduler: scheduler.run_job("s-run"),
    "remove schedule": lambda scheduler: scheduler.remove_job("s-remove"),
    "modify schedule": lambda scheduler: scheduler.modify_job("s-modify", iterations=3),
    "reschedule schedule": lambda scheduler: scheduler.reschedule_job(
        "s-reschedule", crontab="0 3 * * *"
    ),
    "pause queue": lambda scheduler: scheduler.pause_queue("default"),
    "resume queue": lambda scheduler: scheduler.resume_queue("mail"),
}

QUIET = ("pause", "remove", "pause schedule", "remove schedule", "pause queue")
"""After these nothing may be due that was not before, and nobody needs to look."""


def picture(site: Site) -> Any:
    with site.store.read() as connection:
        jobs = {job.id: job for job in site.store.jobs.list(connection)}
        schedules = site.store.schedules.list(connection)
        return jobs, schedules, site.store.queues.paused(connection)


@pytest.mark.parametrize("options", APPLICATIONS)
def test_changes_are_part_of_the_requests_transaction(
    site: MakeSite, options: dict[str, Any]
) -> None:
    here = site(**options)
    prepared(here)
    before = picture(here)

    def view(request: Any) -> None:
        if hasattr(request, "dbsession"):
            request.dbsession.add(Rental(ski="blue"))
        for number, (what, change) in enumerate(CHANGES.items()):
            scheduler = here.scheduler if number % 2 else request.scheduler
            assert change(scheduler) is True, what
        assert picture(here) == before
        assert here.announced == []

    def failing(request: Any) -> None:
        view(request)
        raise ViewError

    with pytest.raises(ViewError):
        here.get(failing)
    assert (picture(here), here.announced) == (before, [])
    here.get(view)
    jobs, schedules, paused = picture(here)
    assert "remove" not in jobs
    assert [jobs[id].state for id in ("cancelled", "pause", "resume")] == ["scheduled"] * 3
    assert [jobs[id].paused for id in ("cancelled", "pause", "resume")] == [False, True, False]
    assert jobs["run"].run_at < FAR
    assert [one.id for one in jobs.values() if one.schedule_id] != []
    by_id = {one.id: one for one in schedules}
    assert "s-remove" not in by_id
    assert (by_id["s-pause"].paused, by_id["s-resume"].paused) == (True, False)
    assert (by_id["s-modify"].iterations_left, by_id["s-reschedule"].kind) == (3, "cron")
    assert paused == {"default"}
    assert [queues for queues, _ in here.announced] == [{"default", "mail"}]
    assert here.rentals() == (options["session"] is not None)


def test_outside_of_a_transaction_each_happens_at_once(site: MakeSite) -> None:
    here = site()
    prepared(here)
    for what, change in CHANGES.items():
        before = picture(here)
        here.announced.clear()
        assert change(here.scheduler) is True, what
        assert picture(here) != before, what
        heard = [queues for queues, _ in here.announced]
        queue = "mail" if what == "resume queue" else "default"
        assert heard == ([] if what in QUIET else [{queue}]), what
        # Once more it is nothing new; but of a schedule there can always be one job more.
        if what not in ("run schedule", "reschedule"):
            assert change(here.scheduler) is False, what


def test_an_unknown_id_is_no_error(site: MakeSite) -> None:
    scheduler = site().scheduler
    for verb in ("pause", "resume", "run", "retry", "remove", "cancel"):
        assert getattr(scheduler, f"{verb}_job")("unknown") is False
    assert scheduler.modify_job("unknown", priority=1) is False
    assert scheduler.reschedule_job("unknown", "5d") is False
    assert scheduler.reschedule_job("unknown", minutes=1) is False


def test_a_transaction_sees_its_own_changes(site: MakeSite) -> None:
    here = site()
    prepared(here)

    def view(request: Any) -> None:
        scheduler = request.scheduler
        scheduler.pause_job("waits")
        assert scheduler.get_job("waits").paused
        assert scheduler.resume_job("waits")
        scheduler.add_async_job(charge, id="new")
        assert scheduler.modify_job("new", name="as new")
        assert scheduler.get_job("new").name == "as new"
        scheduler.pause_queue("default")
        assert scheduler.stats().queues["default"].paused

    here.get(view)
    assert job(here, "new").name == "as new"


def test_a_paused_job_and_schedule_look_it(site: MakeSite) -> None:
    here = site()
    prepared(here)
    paused = job(here, "resume")
    assert (paused.state, paused.paused) == ("scheduled", True)
    assert not job(here, "waits").paused
    assert [one.id for one in here.scheduler.get_schedules(paused=True)] == ["s-resume"]
    assert schedule(here, "s-resume").next_run_at is not None
    assert here.scheduler.get_schedule("unknown") is None
    assert here.scheduler.run_due() != []
    assert {one.state for one in here.scheduler.get_jobs(func=charge)} == {
        "succeeded",
        "scheduled",
        "cancelled",
    }
    assert job(here, "resume").state == "scheduled"


def test_options_are_changed_and_read_back(site: MakeSite) -> None:
    here = site()
    prepared(here)
    assert here.scheduler.modify_job(
        "later", args=["é"], kwargs={"to": FAR}, name="n", priority=0, group="g", userdata={"n": 1},
        max_attempts=3, expires="1h", queue="mail",
    )  # fmt: skip
    info = job(here, "later")
    assert (info.args, info.kwargs, info.name) == (("é",), {"to": FAR}, "n")
    assert (info.priority, info.group, info.userdata) == (0, "g", {"n": 1})
    assert (info.max_attempts, info.queue) == (3, "mail")
    assert info.expires_at == FAR + timedelta(hours=1)
    assert [one.id for one in here.scheduler.get_jobs(queue="mail", group="g")] == ["later"]


def test_a_persistent_object_stays_an_argument(site: MakeSite) -> None:
    here = site()

    def rent(request: Any) -> None:
        rental = Rental(ski="blue")
        request.dbsession.add(rental)
        request.dbsession.flush()
        request.scheduler.add_date_job(rental.remind, FAR, ["one"], id="remind")

    here.get(rent)
    before = job(here, "remind")
    assert here.scheduler.modify_job("remind", kwargs={"late": True})
    assert job(here, "remind").args == before.args
    assert here.scheduler.modify_job("remind", args=[before.args[0], "two"])
    assert job(here, "remind").args == (before.args[0], "two")


def test_bad_input_changes_nothing(site: MakeSite) -> None:
    here = site()
    prepared(here)
    before = picture(here)
    scheduler = here.scheduler
    with pytest.raises(TypeError, match="colour"):
        scheduler.modify_job("waits", colour="red")
    with pytest.raises(TypeError, match="coalesce"):
        scheduler.modify_job("waits", coalesce=True)
    with pytest.raises(InvalidJob, match="priority"):
        scheduler.modify_job("waits", priority=10)
    with pytest.raises(InvalidJob, match="date"):
        scheduler.reschedule_job("waits", minutes=1)
    with pytest.raises(InvalidJob, match="takes fields"):
        scheduler.reschedule_job("s-modify", "5d")
    with pytest.raises(InvalidJob, match="never fire"):
        scheduler.modify_job("s-modify", end_date="1s")
    for verb in (scheduler.pause_queue, scheduler.resume_queue):
        with pytest.raises(InvalidQueue, match="nope"):
            verb("nope")
    assert picture(here) == before


def test_uniqueness_follows_a_change(site: MakeSite) -> None:
    here = site()
    once: dict[str, Any] = {"behavior": "SCHEDULE_ONCE"}
    scheduler = here.scheduler
    scheduler.add_date_job(charge, FAR, [1], id="one", **once)
    scheduler.add_date_job(charge, FAR, [2], id="two", **once)
    with pytest.raises(DuplicateJob, match="one"):
        scheduler.modify_job("two", args=[1])
    assert scheduler.modify_job("one", args=[3])
    assert scheduler.modify_job("two", args=[1])
    with pytest.raises(DuplicateJob):
        scheduler.add_date_job(charge, FAR, [3], **once)
    scheduler.add_date_job(charge, FAR, [2], **once)


def test_a_refused_change_leaves_the_transaction_usable(site: MakeSite) -> None:
    here = site()
    once: dict[str, Any] = {"behavior": "SCHEDULE_ONCE"}
    here.scheduler.add_date_job(charge, FAR, [1], id="one", **once)
    here.scheduler.add_date_job(charge, FAR, [2], id="two", **once)

    def view(request: Any) -> None:
        request.dbsession.add(Rental(ski="blue"))
        request.dbsession.flush()
        with pytest.raises(DuplicateJob):
            request.scheduler.modify_job("two", args=[1])
        request.scheduler.add_async_job(report)

    here.get(view)
    assert (here.rentals(), len(here.jobs())) == (1, 3)


def test_a_rollback_takes_back_a_change_that_had_a_key(site: MakeSite) -> None:
    here = site()
    here.scheduler.add_date_job(charge, FAR, [1], id="one", behavior="SCHEDULE_ONCE")

    def view(request: Any) -> None:
        # The first statement of the transaction.
        assert request.scheduler.modify_job("one", args=[2])
        raise ViewError

    with pytest.raises(ViewError):
        here.get(view)
    assert job(here, "one").args == (1,)


def test_figures(site: MakeSite) -> None:
    here = site()
    prepared(here)
    infos = [("a", ("default",)), ("b", ("default", "mail"))]
    with here.store.begin() as connection:
        for name, queues in infos:
            here.store.daemons.register(
                connection,
                DaemonInfo(incarnation=name, label=name, host="h", pid=1, queues=queues),
            )
        silent = here.store.now(connection) - timedelta(minutes=5)
        daemon = here.store.tables.daemon
        here.store.daemons.register(
            connection, DaemonInfo(incarnation="c", label="c", host="h", pid=1, queues=("mail",))
        )
        connection.execute(
            daemon.update().where(daemon.c.incarnation == "c").values(heartbeat_at=silent)
        )
    stats = here.scheduler.stats()
    assert (list(stats.queues), stats.daemons) == (["default", "mail"], 2)
    default, mail = stats.queues["default"], stats.queues["mail"]
    assert (default.paused, mail.paused) == (False, True)
    assert (default.daemons, mail.daemons) == (2, 1)
    assert (dict(default.jobs), dict(mail.jobs)) == ({"scheduled": 8, "cancelled": 1}, {})
    assert default.oldest_due is not None
    assert 0 <= default.oldest_due < 30
    assert mail.oldest_due is None
