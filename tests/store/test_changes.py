"""Pause, resume, run, retry, remove, rewrite: what they do to jobs, schedules and queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, select, update

from pyramid_durable.behaviors import KEY_OPTION
from pyramid_durable.exceptions import DuplicateJob, InvalidJob
from pyramid_durable.records import JobSpec, Progress, ScheduleSpec, StoredSchedule
from pyramid_durable.store import Store

from .acting import UTC, Make, add, claim, complete, ended, every, interval, stored

LATER = timedelta(hours=1)
ENDS_BADLY = ("failed", "broken", "cancelled", "expired")


def change(store: Store, verb: str, id: str, *args: Any) -> str | None:
    """What the verb says of a job, else of a schedule."""
    for changes in (store.job_changes, store.schedule_changes):
        if hasattr(changes, verb):
            with store.begin() as connection:
                queue = getattr(changes, verb)(connection, id, *args)
            if queue is not None:
                return str(queue)
    return None


def clock(store: Store) -> datetime:
    with store.read() as connection:
        return store.now(connection)


def is_now(store: Store, at: datetime | None) -> bool:
    return at is not None and abs(clock(store) - at) < timedelta(seconds=30)


def remembered(store: Store) -> set[str]:
    """The ids in the tables beside the jobs."""
    tables = store.tables
    with store.read() as connection:
        return {
            id
            for table in (tables.pause, tables.cancel, tables.progress)
            for id in connection.execute(select(table.c.job_id)).scalars()
        }


def schedule_of(store: Store, id: str = "s") -> StoredSchedule:
    with store.read() as connection:
        schedule = store.schedules.get(connection, id)
    assert schedule is not None
    return schedule


def add_schedule(store: Store, schedule: ScheduleSpec) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])


def end(store: Store, spec: JobSpec, state: str, **changes: Any) -> None:
    add(store, spec)
    [claimed] = claim(store)
    complete(store, ended(claimed, state=state, **changes))


@pytest.mark.parametrize("verb", ["pause", "resume", "run", "retry", "remove"])
def test_an_unknown_id_is_nothing_to_change(store: Store, verb: str) -> None:
    assert change(store, verb, "unknown") is None


# Jobs.


def test_a_paused_job_is_not_claimed_until_it_is_resumed(store: Store, spec: Make) -> None:
    due, later = spec(), spec(run_at=datetime.now(UTC) + LATER, queue="mail")
    add(store, due, later)
    before = {one.id: stored(store, one.id).due_at for one in (due, later)}
    assert change(store, "pause", due.id) == "default"
    assert change(store, "pause", later.id) == "mail"
    assert change(store, "pause", due.id) is None
    job = stored(store, due.id)
    assert (job.state, job.due_at, job.paused) == ("scheduled", None, True)
    with store.read() as connection:
        look = store.looks.look(connection, ["default", "mail"])
        assert (look.idle, look.next_at) == (True, None)
        assert store.stats.counts(connection) == {
            "default": {"scheduled": 1},
            "mail": {"scheduled": 1},
        }
    assert change(store, "resume", due.id) == "default"
    assert change(store, "resume", later.id) == "mail"
    assert change(store, "resume", due.id) is None
    assert {one.id: stored(store, one.id).due_at for one in (due, later)} == before
    assert not stored(store, due.id).paused
    assert [one.id for one in claim(store)] == [due.id]
    assert remembered(store) == set()


def test_a_paused_retry_waits_for_its_own_time(store: Store, spec: Make) -> None:
    asked = spec(max_attempts=3)
    end(store, asked, "scheduled", delay=3600.0)
    before = stored(store, asked.id)
    assert before.due_at != before.run_at
    change(store, "pause", asked.id)
    change(store, "resume", asked.id)
    after = stored(store, asked.id)
    assert (after.due_at, after.run_at, after.attempt) == (before.due_at, before.run_at, 1)


@pytest.mark.parametrize("how", ["running", "succeeded", "failed"])
def test_what_does_not_wait_is_neither_paused_nor_run(store: Store, spec: Make, how: str) -> None:
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    if how != "running":
        complete(store, ended(claimed, state=how))
    before = stored(store, asked.id)
    for verb in ("pause", "resume", "run"):
        assert change(store, verb, asked.id) is None
    assert change(store, "rewrite", asked.id, lambda job: job._replace(priority=1)) is None
    assert stored(store, asked.id) == before


def test_a_paused_job_is_cancelled_and_can_be_retried(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    change(store, "pause", asked.id)
    with store.begin() as connection:
        assert store.jobs.cancel(connection, asked.id)
    assert (stored(store, asked.id).paused, remembered(store)) == (False, set())
    assert change(store, "resume", asked.id) is None
    assert change(store, "retry", asked.id) == "default"
    assert len(claim(store)) == 1


@pytest.mark.parametrize("paused", [False, True])
def test_a_waiting_job_is_run_now(store: Store, spec: Make, paused: bool) -> None:
    asked = spec(run_at=datetime.now(UTC) + LATER)
    add(store, asked)
    if paused:
        change(store, "pause", asked.id)
    assert change(store, "run", asked.id) == "default"
    job = stored(store, asked.id)
    assert is_now(store, job.run_at)
    assert job.due_at == job.run_at
    assert change(store, "run", asked.id) is None
    [claimed] = claim(store)
    # It keeps its new time when it is given back.
    with store.begin() as connection:
        store.holdings.release(connection, [claimed])
    assert len(claim(store)) == 1
    assert remembered(store) == set()


@pytest.mark.parametrize("state", ENDS_BADLY)
def test_what_ended_badly_waits_again_with_all_its_attempts(
    store: Store, spec: Make, state: str
) -> None:
    past = datetime.now(UTC) - LATER
    asked = spec(run_at=past, max_attempts=2, options={"expires": 60.0}, userdata='{"n":1}')
    end(store, asked, state, attempt=2, errors='["one","two"]', userdata='{"n":1}', result="1")
    with store.begin() as connection:
        store.jobs.set_progress(connection, asked.id, Progress(done=1.0, total=None))
        job = store.tables.job
        connection.execute(update(job).where(job.c.id == asked.id).values(crashes=2))
    assert change(store, "retry", asked.id) == "default"
    job = stored(store, asked.id)
    assert (job.state, job.attempt, job.crashes) == ("scheduled", 0, 0)
    assert (job.started_at, job.finished_at, job.result, job.progress) == (None, None, None, None)
    assert (job.errors, job.userdata, job.options) == (
        '["one","two"]',
        '{"n":1}',
        {"expires": 60.0},
    )
    # Lateness and expiry count from now, or it would expire at once.
    assert is_now(store, job.run_at)
    assert change(store, "retry", asked.id) is None
    [claimed] = claim(store)
    assert (claimed.attempt, claimed.claim_no) == (0, 2)


def test_what_succeeded_or_runs_or_waits_is_not_retried(store: Store, spec: Make) -> None:
    waits = spec(run_at=datetime.now(UTC) + LATER)
    add(store, waits)
    good, runs = spec(), spec()
    end(store, good, "succeeded")
    add(store, runs)
    assert len(claim(store)) == 1
    assert [change(store, "retry", one.id) for one in (waits, good, runs)] == [None] * 3


def test_a_late_write_of_the_attempt_before_does_not_end_a_retried_job(
    store: Store, spec: Make
) -> None:
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    complete(store, ended(claimed, state="failed"))
    change(store, "retry", asked.id)
    assert complete(store, ended(claimed)) == set()
    [again] = claim(store)
    assert complete(store, ended(claimed)) == set()
    assert complete(store, ended(again))


def test_a_retry_forgets_the_request_to_stop(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    with store.begin() as connection:
        store.jobs.cancel(connection, asked.id)
    complete(store, ended(claimed, state="cancelled"))
    change(store, "retry", asked.id)
    assert not stored(store, asked.id).cancel_requested


def test_an_expiry_date_that_is_over_does_not_stop_a_retry(store: Store, spec: Make) -> None:
    now = datetime.now(UTC)
    over, ahead = (now - LATER).isoformat(), (now + LATER).isoformat()
    for expires, kept in ((over, {}), (ahead, {"expires": ahead})):
        asked = spec(options={"expires": expires})
        end(store, asked, "expired")
        change(store, "retry", asked.id)
        assert stored(store, asked.id).options == kept
        complete(store, *map(ended, claim(store)))


def test_a_retried_job_binds_its_key_again(store: Store, spec: Make) -> None:
    def unique() -> JobSpec:
        return spec(options={"behavior": "SCHEDULE_ONCE", KEY_OPTION: "k"}, waiting_key="k")

    first, second = unique(), unique()
    end(store, first, "failed")
    end(store, second, "failed")
    assert change(store, "retry", first.id) == "default"
    with store.begin() as connection:
        with pytest.raises(DuplicateJob, match=first.id):
            store.job_changes.retry(connection, second.id)
        # The transaction is still good.
        store.jobs.add(connection, [spec(id="other")])
    assert stored(store, second.id).state == "failed"
    assert stored(store, "other").state == "scheduled"
    with pytest.raises(DuplicateJob):
        add(store, unique())


def test_the_account_of_missed_fire_times_is_not_retried(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=100)
    add_schedule(store, interval(spec(), 10.0, trigger=every(10.0, start), next_run_at=start))
    claim(store)
    with store.read() as connection:
        [account] = store.jobs.list(connection, state="expired")
    assert change(store, "retry", account.id) is None


@pytest.mark.parametrize("state", ["scheduled", "paused", "succeeded", "failed"])
def test_a_job_is_removed_with_all_that_is_beside_it(store: Store, spec: Make, state: str) -> None:
    asked, other = spec(), spec(run_at=datetime.now(UTC) + LATER)
    if state in ("succeeded", "failed"):
        end(store, asked, state)
    else:
        add(store, asked)
    add(store, other)
    with store.begin() as connection:
        store.jobs.set_progress(connection, asked.id, Progress(done=1.0, total=None))
    if state == "paused":
        change(store, "pause", asked.id)
    assert change(store, "remove", asked.id) == "default"
    assert change(store, "remove", asked.id) is None
    with store.read() as connection:
        assert [job.id for job in store.jobs.list(connection)] == [other.id]
    assert remembered(store) == set()


@pytest.mark.parametrize("then", ["succeeded", "failed", "scheduled", "rescued"])
def test_a_running_job_is_asked_to_stop_and_goes_when_it_does_not_run(
    store: Store, spec: Make, then: str
) -> None:
    asked, other = spec(), spec()
    add(store, asked, other)
    claimed = {one.id: one for one in claim(store)}
    with store.begin() as connection:
        # Who was only asked to stop stays.
        assert store.jobs.cancel(connection, other.id)
    assert change(store, "remove", asked.id) == "default"
    assert change(store, "remove", asked.id) is None
    before = stored(store, asked.id)
    assert (before.state, before.cancel_requested) == ("running", True)
    with store.begin() as connection:
        assert store.job_changes.sweep(connection) == []
    complete(store, ended(claimed[other.id], state="cancelled"))
    if then == "rescued":
        with store.begin() as connection:
            store.daemons.rescue(connection, lease=15.0, poison_limit=3)
    else:
        assert complete(store, ended(claimed[asked.id], state=then, delay=0.0))
    with store.begin() as connection:
        assert len(store.job_changes.sweep(connection)) == 1
        assert store.job_changes.sweep(connection) == []
        assert [job.id for job in store.jobs.list(connection)] == [other.id]
    assert remembered(store) == {other.id}


def test_one_that_was_asked_to_stop_can_still_be_removed(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    with store.begin() as connection:
        assert store.jobs.cancel(connection, asked.id)
    assert change(store, "remove", asked.id) == "default"
    complete(store, ended(claimed, delete=True))
    with store.begin() as connection:
        # It is gone by itself, and nothing is left to be swept.
        assert store.job_changes.sweep(connection) == []
    assert remembered(store) == set()


def test_a_waiting_job_is_rewritten(store: Store, spec: Make) -> None:
    asked = spec(userdata="{}")
    add(store, asked)
    at = datetime(2033, 1, 1, tzinfo=UTC)
    changes = {"queue": "mail", "name": "é", "priority": 9, "max_attempts": None, "group": "g"}
    more: dict[str, Any] = {"payload": "[[1],{}]", "options": {"timeout": 3.0}, "userdata": None}
    assert (
        change(store, "rewrite", asked.id, lambda job: job._replace(**changes, **more, run_at=at))
        == "mail"
    )
    job = stored(store, asked.id)
    assert {name: getattr(job, name) for name in (*changes, *more)} == {**changes, **more}
    assert (job.run_at, job.due_at, job.func, job.state) == (at, at, asked.func, "scheduled")
    assert change(store, "rewrite", asked.id, lambda job: job) is None
    change(store, "rewrite", asked.id, lambda job: job._replace(run_at=None, delay=3600.0))
    assert is_now(store, stored(store, asked.id).run_at - LATER)


def test_a_paused_job_that_is_rescheduled_stays_paused(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    change(store, "pause", asked.id)
    at = datetime(2033, 1, 1, tzinfo=UTC)
    assert change(store, "rewrite", asked.id, lambda job: job._replace(run_at=at))
    assert stored(store, asked.id).paused
    change(store, "resume", asked.id)
    assert stored(store, asked.id).due_at == at


def once(job: JobSpec, key: str, **changes: Any) -> JobSpec:
    options = {**job.options, "behavior": "SCHEDULE_ONCE", KEY_OPTION: key}
    return job._replace(options=options, waiting_key=key, **changes)


def with_key(job: JobSpec, key: str, behavior: str) -> JobSpec:
    return job._replace(options={"behavior": behavior, KEY_OPTION: key})


def test_keys_follow_and_a_taken_one_is_a_duplicate(store: Store, spec: Make) -> None:
    add(store, once(spec(id="one"), "k"), once(spec(id="two"), "l"))
    with store.begin() as connection:
        with pytest.raises(DuplicateJob, match="one"):
            store.job_changes.rewrite(connection, "two", lambda job: once(job, "k", priority=1))
        assert store.job_changes.rewrite(connection, "one", lambda job: once(job, "m"))
        assert store.job_changes.rewrite(connection, "two", lambda job: once(job, "k"))
        # Another option of a job is no reason to compare it.
        assert store.job_changes.rewrite(connection, "two", lambda job: job._replace(name="n"))
    assert (stored(store, "two").priority, stored(store, "two").name) == (5, "n")
    for key in ("m", "k"):
        with pytest.raises(DuplicateJob):
            add(store, once(spec(), key))
    add(store, once(spec(), "l"))


def test_a_job_that_gets_a_behavior_is_not_in_its_own_way(store: Store, spec: Make) -> None:
    add(store, spec(id="one")._replace(group="g", options={KEY_OPTION: "k"}))
    assert change(store, "rewrite", "one", lambda job: once(job, "k"))
    assert change(store, "rewrite", "one", lambda job: with_key(job, "k", "LAST_ONLY"))
    assert stored(store, "one").state == "scheduled"


def test_a_job_that_becomes_the_last_one_cancels_the_equal_ones(store: Store, spec: Make) -> None:
    for id in ("one", "two"):
        add(store, with_key(spec(id=id), f"k-{id}", "LAST_ONLY"))
    change(store, "pause", "one")
    assert change(store, "rewrite", "two", lambda job: with_key(job, "k-one", "LAST_ONLY"))
    assert [stored(store, id).state for id in ("one", "two")] == ["cancelled", "scheduled"]
    assert remembered(store) == set()
    assert change(store, "retry", "one") == "default"
    assert [stored(store, id).state for id in ("one", "two")] == ["scheduled", "cancelled"]
    assert [one.id for one in claim(store)] == ["one"]


def test_what_has_succeeded_once_is_not_retried(store: Store, spec: Make) -> None:
    def run_once() -> JobSpec:
        return with_key(spec(), "k", "RUN_ONCE")

    first, second = run_once(), run_once()
    end(store, first, "failed")
    add(store, second)
    [claimed] = claim(store)
    complete(store, ended(claimed, once_key="k"))
    with pytest.raises(DuplicateJob, match=second.id):
        change(store, "retry", first.id)
    assert stored(store, first.id).state == "failed"


def test_of_two_that_get_one_key_at_once_one_has_it(store: Store, spec: Make, beside: Any) -> None:
    add(store, once(spec(id="one"), "k"), once(spec(id="two"), "l"))
    with store.begin() as connection:
        assert store.job_changes.rewrite(connection, "one", lambda job: once(job, "m"))
        answer = beside(
            lambda other: store.job_changes.rewrite(other, "two", lambda job: once(job, "m"))
        )
    assert isinstance(answer(), DuplicateJob)
    assert stored(store, "two").options[KEY_OPTION] == "l"
    with pytest.raises(DuplicateJob):
        add(store, once(spec(), "l"))


# Two transactions at once.


@pytest.fixture
def beside(store: Store) -> Iterator[Callable[[Callable[[Connection], Any]], Callable[[], Any]]]:
    """Do something in a transaction of its own beside this one; what is returned waits for it.

    It goes on when the other has looked, and comes to its first lock.
    """
    threads: list[threading.Thread] = []
    locking = threading.Event()

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if threading.current_thread() in threads:
            text = statement.upper()
            if "FOR UPDATE" in text or text.startswith(("UPDATE", "BEGIN IMMEDIATE")):
                locking.set()

    def start(act: Callable[[Connection], Any]) -> Callable[[], Any]:
        answers: list[Any] = []

        def work() -> None:
            try:
                with store.begin() as connection:
                    answers.append(act(connection))
            except BaseException as error:
                answers.append(error)

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        assert locking.wait(20)

        def answer() -> Any:
            thread.join(20)
            assert answers, "it still waits"
            return answers[0]

        return answer

    event.listen(store.engine, "before_cursor_execute", note)
    yield start
    event.remove(store.engine, "before_cursor_execute", note)
    for thread in threads:
        thread.join(20)


def act_on(store: Store, connection: Connection, verb: str, id: str) -> Any:
    changes = store.job_changes
    if verb == "rewrite":
        return changes.rewrite(connection, id, lambda job: job._replace(priority=1))
    if verb == "run_later":
        return changes.rewrite(connection, id, lambda job: job._replace(run_at=None, delay=60.0))
    if verb == "cancel":
        return store.jobs.cancel(connection, id) or None
    return getattr(changes, verb)(connection, id)


@pytest.mark.parametrize("verb", ["pause", "run_later", "rewrite"])
def test_a_change_while_the_job_is_being_claimed_finds_it_running(
    store: Store, spec: Make, beside: Any, verb: str
) -> None:
    asked = spec()
    add(store, asked)
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    with store.begin() as connection:
        [claimed] = store.claims.take(connection, "a", look, 10)
        answer = beside(lambda other: act_on(store, other, verb, asked.id))
    assert answer() is None
    job = stored(store, asked.id)
    assert (job.state, job.owner, job.priority) == ("running", "a", 5)
    assert complete(store, ended(claimed))


@pytest.mark.parametrize("verb", ["pause", "run_later", "remove", "cancel"])
def test_a_claim_while_the_job_is_being_changed_takes_nothing(
    store: Store, spec: Make, beside: Any, verb: str
) -> None:
    asked = spec()
    add(store, asked)
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    with store.begin() as connection:
        assert act_on(store, connection, verb, asked.id)
        answer = beside(lambda other: store.claims.take(other, "a", look, 10))
        if store.dialect.skip_locked:
            # It does not even wait.
            assert answer() == []
    assert answer() == []
    assert claim(store) == []


def test_of_two_retries_at_once_one_counts(store: Store, spec: Make, beside: Any) -> None:
    asked = spec()
    end(store, asked, "failed")
    with store.begin() as connection:
        assert store.job_changes.retry(connection, asked.id)
        answer = beside(lambda other: store.job_changes.retry(other, asked.id))
    assert answer() is None
    assert len(claim(store)) == 1


def test_a_schedule_that_is_paused_while_it_fires_fires_once(
    store: Store, spec: Make, beside: Any
) -> None:
    add_schedule(store, interval(spec(), 3600.0))
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    with store.begin() as connection:
        assert len(store.claims.take(connection, "a", look, 10)) == 1
        answer = beside(lambda other: store.schedule_changes.pause(other, "s"))
    assert answer() == "default"
    schedule = schedule_of(store)
    assert (schedule.paused, schedule.next_run_at) == (True, schedule.last_run_at + LATER)  # type: ignore[operator]


def test_the_sweep_does_not_wait_for_an_end_that_is_about_to_commit(
    store: Store, spec: Make
) -> None:
    if not store.dialect.skip_locked:
        pytest.skip("one writer: nothing is about to commit beside the sweep")
    asked = spec()
    add(store, asked)
    [claimed] = claim(store)
    change(store, "remove", asked.id)
    with store.begin() as one:
        assert store.completions.write(one, [ended(claimed)])
        with store.begin() as two:
            assert store.job_changes.sweep(two) == []
    with store.begin() as connection:
        assert len(store.job_changes.sweep(connection)) == 1


# Schedules.


def test_a_paused_schedule_goes_on_from_its_next_time_with_an_account(
    store: Store, spec: Make
) -> None:
    start = datetime.now(UTC) - timedelta(seconds=95)
    add_schedule(
        store,
        interval(spec(), 10.0, trigger=every(10.0, start), next_run_at=start, iterations=7),
    )
    assert change(store, "pause", "s") == "default"
    assert change(store, "pause", "s") is None
    assert (schedule_of(store).paused, schedule_of(store).next_run_at) == (True, start)
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    assert (look.idle, look.next_at) == (True, None)
    assert claim(store) == []
    assert change(store, "resume", "s") == "default"
    assert change(store, "resume", "s") is None
    schedule = schedule_of(store)
    now = clock(store)
    assert not schedule.paused
    assert schedule.next_run_at is not None
    assert now < schedule.next_run_at <= now + timedelta(seconds=10)
    assert (schedule.next_run_at - start) % timedelta(seconds=10) == timedelta(0)
    assert (schedule.iterations_left, schedule.last_run_at) == (7, None)
    assert claim(store) == []
    with store.read() as connection:
        [account] = store.jobs.list(connection, schedule_id="s")
    passed = account.options["passed"]
    missed = (schedule.next_run_at - start) // timedelta(seconds=10)
    assert (account.state, passed["reason"], passed["number"]) == ("expired", "paused", missed)
    assert datetime.fromisoformat(passed["first"]) == start
    assert datetime.fromisoformat(passed["last"]) == schedule.next_run_at - timedelta(seconds=10)
    assert "was paused" in (account.errors or "")


def test_a_pause_that_missed_nothing_leaves_no_account(store: Store, spec: Make) -> None:
    at = datetime.now(UTC) + LATER
    add_schedule(store, interval(spec(), 60.0, trigger=every(60.0, at), next_run_at=at))
    change(store, "pause", "s")
    change(store, "resume", "s")
    with store.read() as connection:
        assert store.jobs.list(connection) == []
        assert store.looks.look(connection, ["default"]).next_at == at
    assert schedule_of(store).next_run_at == at


def test_a_schedule_whose_end_passed_in_its_pause_has_ended(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=95)
    stop = start + timedelta(seconds=25)
    trigger = {**every(10.0, start), "end_date": stop.isoformat()}
    add_schedule(store, interval(spec(), 10.0, trigger=trigger, next_run_at=start, end_date=stop))
    change(store, "pause", "s")
    change(store, "resume", "s")
    assert schedule_of(store).next_run_at is None
    with store.read() as connection:
        [account] = store.jobs.list(connection)
        assert store.looks.look(connection, ["default"]).idle
    assert account.options["passed"]["number"] == 3
    assert change(store, "pause", "s") is None


def test_a_schedule_makes_one_job_more(store: Store, spec: Make) -> None:
    at = datetime.now(UTC) + LATER
    add_schedule(
        store,
        interval(
            spec(kind="interval"), 60.0, trigger=every(60.0, at), next_run_at=at, iterations=1
        ),
    )
    change(store, "pause", "s")
    before = schedule_of(store)
    assert change(store, "run", "s") == "default"
    assert change(store, "run", "s") == "default"
    assert schedule_of(store) == before
    claims = claim(store)
    assert [(one.schedule_id, one.fire_at, one.kind) for one in claims] == [
        ("s", None, "interval")
    ] * 2
    assert all(is_now(store, one.run_at) for one in claims)


def test_a_removed_schedule_is_gone_and_its_jobs_stay(store: Store, spec: Make) -> None:
    add_schedule(store, interval(spec(), 60.0))
    [claimed] = claim(store)
    assert change(store, "remove", "s") == "default"
    assert change(store, "remove", "s") is None
    with store.read() as connection:
        assert store.schedules.get(connection, "s") is None
    assert complete(store, ended(claimed))


def test_a_rewritten_schedule_makes_other_jobs(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=1)
    add_schedule(store, interval(spec(), 60.0, trigger=every(60.0, start), next_run_at=start))

    def rewrite(old: ScheduleSpec, now: datetime) -> ScheduleSpec:
        assert abs(now - start) < timedelta(minutes=1)
        return replace(old, job=old.job._replace(queue="mail", payload="[[7],{}]"), iterations=3)

    assert change(store, "rewrite", "s", rewrite) == "mail"
    assert change(store, "rewrite", "s", lambda old, now: old) is None
    assert claim(store) == []
    [claimed] = claim(store, queues=("mail",))
    assert (claimed.payload, claimed.run_at) == ("[[7],{}]", start)
    assert schedule_of(store).iterations_left == 2


@pytest.mark.parametrize("paused", [False, True])
def test_a_schedule_gets_another_time(store: Store, spec: Make, paused: bool) -> None:
    add_schedule(store, interval(spec(), 60.0))
    if paused:
        change(store, "pause", "s")
    at = datetime.now(UTC) + LATER
    change(store, "rewrite", "s", lambda old, now: replace(old, next_run_at=at))
    schedule = schedule_of(store)
    assert (schedule.next_run_at, schedule.paused) == (at, paused)
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    assert (look.idle, look.next_at) == (True, None if paused else at)


def test_a_schedule_that_was_set_aside_goes_on_with_a_new_trigger(store: Store, spec: Make) -> None:
    add_schedule(store, interval(spec(), 60.0, trigger={"kind": "moon"}))
    assert claim(store) == []
    with pytest.raises(InvalidJob, match="moon"):
        change(store, "pause", "s")
        change(store, "resume", "s")
    start = datetime.now(UTC)
    change(
        store,
        "rewrite",
        "s",
        lambda old, now: replace(old, trigger=every(60.0, start), next_run_at=start),
    )
    with store.begin() as connection:
        connection.execute(update(store.tables.schedule).values(paused=False, due_at=start))
    assert len(claim(store)) == 1
    with store.read() as connection:
        assert connection.execute(select(store.tables.schedule.c.error)).scalar_one() is None


def test_a_declared_schedule_stays_as_it_was_changed_until_that_is_declared_otherwise(
    store: Store, spec: Make
) -> None:
    pattern = spec(id="pattern")
    start = datetime.now(UTC) - timedelta(seconds=1)

    def declare(seconds: float, job: JobSpec = pattern) -> None:
        trigger = every(seconds, start)
        declared = interval(job, seconds, trigger=trigger, next_run_at=start, declared=True)
        with store.begin() as connection:
            store.generations.settle(connection, [declared], lease=15.0)

    declare(60.0)
    later = every(7.0, start + LATER)
    change(store, "pause", "s")
    change(
        store,
        "rewrite",
        "s",
        lambda old, now: replace(old, trigger=later, job=old.job._replace(payload="[[7],{}]")),
    )
    declare(60.0)
    schedule = schedule_of(store)
    assert (schedule.paused, schedule.trigger, schedule.job.payload) == (True, later, "[[7],{}]")
    declare(60.0, pattern._replace(payload="[[8],{}]"))
    schedule = schedule_of(store)
    assert (schedule.paused, schedule.trigger, schedule.job.payload) == (True, later, "[[8],{}]")
    declare(5.0)
    schedule = schedule_of(store)
    assert (schedule.paused, schedule.trigger["seconds"]) == (True, 5.0)
    assert claim(store) == []


def test_a_paused_schedule_that_is_cancelled_has_ended(store: Store, spec: Make) -> None:
    add_schedule(store, interval(spec(), 60.0))
    change(store, "pause", "s")
    with store.begin() as connection:
        assert store.schedules.cancel(connection, "s")
    schedule = schedule_of(store)
    assert (schedule.paused, schedule.next_run_at) == (False, None)
    assert change(store, "resume", "s") is None


# Queues.


def test_nothing_of_a_paused_queue_starts_in_any_daemon(store: Store, spec: Make) -> None:
    add(store, spec(), spec(queue="mail"))
    add_schedule(store, interval(spec(queue="mail"), 3600.0, id="mails"))
    with store.read() as connection:
        before = store.looks.look(connection, ["default", "mail"])
    assert before.schedules_due
    with store.begin() as connection:
        assert store.queues.set_paused(connection, "mail", True)
        assert not store.queues.set_paused(connection, "mail", True)
        assert store.queues.paused(connection) == {"mail"}
    with store.read() as connection:
        look = store.looks.look(connection, ["mail"])
        # Nor is there a time at which to look again: an idle daemon does not spin.
        assert (look.idle, look.schedules_due, look.next_at) == (True, False, None)
    with store.begin() as connection:
        # Also with a look from before the pause.
        claims = store.claims.take(connection, "a", before, 10)
    assert [one.queue for one in claims] == ["default"]
    assert schedule_of(store, "mails").last_run_at is None
    with store.begin() as connection:
        assert store.queues.set_paused(connection, "mail", False)
        assert not store.queues.set_paused(connection, "mail", False)
        assert not store.queues.set_paused(connection, "never", False)
    assert [one.schedule_id for one in claim(store, queues=("mail",))] == ["mails", None]


def test_a_queue_is_paused_again(store: Store, spec: Make) -> None:
    add(store, spec())
    for paused in (True, False, True):
        with store.begin() as connection:
            assert store.queues.set_paused(connection, "default", paused)
    assert claim(store) == []


def test_the_schedules_of_a_queue_catch_up_as_after_an_outage(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=95)
    add_schedule(store, interval(spec(), 10.0, trigger=every(10.0, start), next_run_at=start))
    with store.begin() as connection:
        store.queues.set_paused(connection, "default", True)
    assert claim(store) == []
    with store.begin() as connection:
        store.queues.set_paused(connection, "default", False)
    [claimed] = claim(store)
    assert claimed.fire_at is not None
    assert claimed.fire_at > start + timedelta(seconds=80)


def test_figures_by_queue(store: Store, spec: Make) -> None:
    ago = datetime.now(UTC) - timedelta(seconds=90)
    end(store, spec(), "succeeded")
    end(store, spec(), "failed")
    add(store, spec(), spec())
    assert len(claim(store, limit=1)) == 1
    add(store, spec(priority=9, run_at=ago), spec(run_at=datetime.now(UTC) + LATER, queue="mail"))
    with store.read() as connection:
        assert store.stats.counts(connection) == {
            "default": {"succeeded": 1, "failed": 1, "running": 1, "scheduled": 2},
            "mail": {"scheduled": 1},
        }
        oldest = store.stats.oldest_due(connection, ["default", "mail", "none"])
    now, due_at = oldest["default"]
    assert due_at is not None
    assert abs((now - due_at).total_seconds() - 90) < 30
    assert oldest["mail"][1] is not None
    assert oldest["mail"][1] > now
    assert oldest["none"] == (now, None)


def test_pages_of_jobs_go_on_behind_the_last_one(store: Store, spec: Make) -> None:
    add(store, *[spec(queue="mail" if n % 2 else "default") for n in range(7)])
    with store.read() as connection:
        ids = [job.id for job in store.jobs.list(connection)]
        pages = [store.jobs.list(connection, limit=3)]
        while pages[-1]:
            pages.append(store.jobs.list(connection, before=pages[-1][-1].id, limit=3))
        mail = store.jobs.list(connection, queue="mail", before=ids[3])
    assert [[job.id for job in page] for page in pages] == [ids[:3], ids[3:6], ids[6:], []]
    assert [job.id for job in mail] == [id for id in ids[4:] if stored(store, id).queue == "mail"]


def test_schedules_are_listed_by_what_they_are(store: Store, spec: Make) -> None:
    add_schedule(store, interval(spec(group="g"), 60.0, id="a"))
    add_schedule(store, interval(spec(func="other:f", queue="mail"), 60.0, id="b"))
    add_schedule(store, interval(spec(), 60.0, id="c"))
    change(store, "pause", "c")

    def ids(**by: Any) -> list[str]:
        with store.read() as connection:
            return [one.id for one in store.schedules.list(connection, **by)]

    assert ids() == ["a", "b", "c"]
    assert ids(group="g") == ["a"]
    assert ids(func="other:f") == ids(queue="mail") == ["b"]
    assert (ids(paused=True), ids(paused=False)) == (["c"], ["a", "b"])
    assert ids(offset=1) == ["b", "c"]
    assert ids(offset=1, limit=1) == ["b"]
