"""What a real daemon tells of its jobs, in which order, over each database."""

import threading

import pytest
from pyramid.threadlocal import get_current_registry, get_current_request
from sqlalchemy import update

from pyramid_durable import event_queue, interruptions, telling
from pyramid_durable.current import in_job
from pyramid_durable.daemon import Daemon
from pyramid_durable.events import (
    DaemonEvent,
    DaemonStarted,
    DaemonStopping,
    DurableEvent,
    JobBroken,
    JobCancelled,
    JobCreated,
    JobEvent,
    JobExpired,
    JobFailed,
    JobRetrying,
    JobStarted,
    JobSucceeded,
    MessageReceived,
)
from pyramid_durable.exceptions import StoreUnavailable

from . import jobs
from .fakes import eventually
from .story import LAWFUL, Story

FAST = {
    "scheduler.poll_interval": "0.2s",
    "scheduler.heartbeat": "0.2s",
    "scheduler.lease": "2s",
    "scheduler.threads": "4",
    "scheduler.id": "the-daemon",
}
PAST = "2020-01-01T00:00:00Z"

on_sqlite = pytest.mark.parametrize("made_store", ["sqlite"], indirect=True)
"""For what has nothing to do with the database."""


@pytest.fixture
def story():
    return Story()


@pytest.fixture
def started(bench, story):
    """Make an application whose story is written down, with a daemon that works."""
    daemons = []

    def start(*, settings=None, one=None, prepare=lambda one: None, **options):
        one = one or bench(settings={**FAST, **(settings or {})}, **options)
        one.scheduler.add_listener(story)
        prepare(one)
        daemon = Daemon(one.scheduler.registry)
        daemon.start()
        daemons.append(daemon)
        return one, daemon

    yield start
    for gate in jobs.gates.values():
        gate.set()
    for daemon in daemons:
        daemon.stop(10)


EACH = [
    ("CSs", {"func": jobs.add, "args": [1]}),
    ("CSs", {"func": jobs.rent}),
    ("CSs", {"func": jobs.later, "args": ["hello"]}),
    ("CSs", {"func": jobs.LateFee, "args": ["blue"]}),
    ("CSs", {"func": jobs.unstorable}),
    ("CSsX", {"func": jobs.add, "args": [1], "delete_after": True}),
    ("CSsX", {"func": jobs.rent, "delete_after": True}),
    ("CSrSrSf", {"func": jobs.fail, "max_attempts": 3, "backoff": "10ms"}),
    ("CSf", {"func": jobs.fail}),
    ("CSf", {"func": jobs.mistaken}),
    ("CSf", {"func": jobs.leave}),
    ("CSfX", {"func": jobs.fail, "delete_after": True}),
    ("CSrSf", {"func": jobs.again, "kwargs": {"delay": "10ms", "max_attempts": 2}}),
    ("CSc", {"func": jobs.give_up}),
    ("CScX", {"func": jobs.give_up, "delete_after": True}),
    ("CSc", {"func": jobs.LateFee, "args": ["blue", False]}),
    ("Cb", {"func": jobs.LateFee, "args": ["unknown"]}),
    ("Cb", {"func": jobs.two, "args": [1], "delete_after": True}),
    ("Ce", {"func": jobs.add, "date": PAST, "expires": "1s"}),
    ("CeX", {"func": jobs.add, "date": PAST, "misfire_grace_time": 1, "delete_after": True}),
]


def test_each_job_tells_its_story_and_no_other(started, story):
    subscribed = Story()
    one, daemon = started(configure=lambda config: config.add_subscriber(subscribed, DurableEvent))
    expected = {}
    for word, job in EACH * 4:
        job = dict(job)
        if job["func"] is jobs.rent:
            job["args"] = [f"ski {len(expected)}"]
        (id,) = one.scheduler.add_jobs([job])
        expected[id] = word
    # One whose arguments cannot be read, and the jobs of a schedule.
    unreadable = one.scheduler.add_date_job(jobs.add, "1h", args=[1])
    with one.store.begin() as connection:
        table = one.store.tables.job
        change = update(table).where(table.c.id == unreadable)
        now = table.c.created_at
        connection.execute(change.values(payload="no JSON", due_at=now, run_at=now))
    expected[unreadable] = "Cb"
    schedule = one.scheduler.add_interval_job(jobs.add, seconds=0.2, iterations=2)
    eventually(
        lambda: sum(word[-1] in "sfcbeX" for word in story.words.values()) >= len(expected) + 2,
        timeout=30,
    )
    assert daemon.stop(10)
    words = story.words
    assert {id: words.pop(id) for id in expected} == expected
    assert set(words.values()) == {"CSs"}
    assert all(LAWFUL.fullmatch(word) for word in story.words.values())
    born = [event.job for event in story.of(JobCreated) if event.job.id in words]
    assert {(job.kind, job.schedule_id) for job in born} == {("interval", schedule)}
    assert subscribed.events == story.events, "subscribers and listeners hear the same"
    assert story.threads == {"durable-events"}
    assert isinstance(story.events[-1], DaemonStopping) or story.of(DaemonStopping)


@on_sqlite
def test_what_events_say(started, story):
    one, daemon = started()
    ids = one.scheduler.add_jobs(
        [
            {"func": jobs.add, "args": [1, 2], "name": "sum", "group": "g"},
            {"func": jobs.fail, "args": ["first line\nsecond"], "max_attempts": 2, "backoff": 0.01},
            {"func": jobs.again, "kwargs": {"date": "2999-01-01T00:00:00Z"}},
            {"func": jobs.give_up},
            {"func": jobs.LateFee, "args": ["unknown"]},
            {"func": jobs.add, "date": PAST, "expires": "1s"},
        ]
    )
    eventually(lambda: [story.words[id][-1:] for id in ids] == list("sfrcbe"), timeout=10)
    (success,) = story.of(JobSucceeded)
    assert success.result == 3
    assert (success.job.name, success.job.group) == ("sum", "g")
    assert success.job.func == "tests.daemon.jobs:add"
    failed, again = sorted(story.of(JobRetrying), key=lambda event: event.job.func, reverse=True)
    assert failed.reason == "ValueError: first line"
    assert failed.error.splitlines()[-1] == "second"
    assert failed.delay is not None
    assert failed.due_at is None
    assert again.reason == "it asked for another attempt"
    assert again.due_at is not None
    (failure,) = story.of(JobFailed)
    assert isinstance(failure.exception, ValueError)
    assert "Traceback" in failure.error
    attempts = [event.job.attempt for event in story.of(JobEvent) if event.job.id == ids[1]]
    assert attempts == [0, 1, 1, 2, 2]
    assert story.of(JobCancelled)[0].reason == "not needed"
    assert "LookupError" in story.of(JobBroken)[0].error
    assert "expired at 2020-01-01" in story.of(JobExpired)[0].reason
    daemon.stop()
    assert [type(event) for event in story.of(DaemonEvent)] == [DaemonStarted, DaemonStopping]
    assert {(event.daemon, event.queues) for event in story.of(DaemonEvent)} == {
        ("the-daemon", ("default", "mail"))
    }


@on_sqlite
def test_a_message_is_told(started, story):
    one, _ = started()

    def sent():
        # Best effort: who sends before the listener is there sends in vain.
        one.scheduler.send_message("hello", queue="mail")
        return story.of(MessageReceived)

    message = eventually(sent)[0]
    assert (message.text, message.queue) == ("hello", "mail")


def gone(one):
    """Let the bench's own daemon, which never beats, be taken for dead."""
    daemon = one.store.tables.daemon
    with one.store.begin() as connection:
        connection.execute(daemon.delete().where(daemon.c.incarnation == one.owner))


@pytest.mark.parametrize(
    ("poison_limit", "known_as_started", "word"),
    [("3", True, "rSs"), ("1", True, "f"), ("1", False, "Ss")],
)
def test_a_rescue_shows_as_another_attempt_with_its_reason(
    bench, started, story, poison_limit, known_as_started, word
):
    one = bench(settings={**FAST, "scheduler.poison_limit": poison_limit})
    id = one.scheduler.add_async_job(jobs.add, args=[1])
    with one.store.begin() as connection:
        look = one.store.looks.look(connection, ["default"])
        one.store.claims.take(connection, one.owner, look, 1, starting=int(known_as_started))
    gone(one)
    started(one=one)
    eventually(lambda: story.words[id] == word, timeout=10)
    for event in story.of(JobRetrying):
        assert event.reason == "its daemon is gone (crash 1)"
    for event in story.of(JobFailed):
        assert "the last one allowed" in event.error
        assert event.job.attempt == 1
        assert event.job.name == "tests.daemon.jobs:add"


@pytest.mark.parametrize("writes", [False, True])
def test_nothing_is_told_of_an_attempt_whose_claim_was_lost(started, story, writes):
    one, daemon = started(settings={"scheduler.heartbeat": "10s", "scheduler.lease": "60s"})

    def lose(request):
        table = one.store.tables.job
        taken = {"owner": one.owner, "claim_no": table.c.claim_no + 1}
        with one.store.begin() as connection:
            connection.execute(update(table).values(taken))
        if writes:
            request.dbsession.add(jobs.Rental(ski="of a lost claim"))

    jobs.hooks["lose"] = lose
    id = one.scheduler.add_async_job(jobs.hooked, args=["lose"])
    eventually(lambda: story.words[id] == "CS")
    assert daemon.stop(10)
    assert story.words[id] == "CS"
    assert one.rentals() == 0


def test_an_end_is_told_only_when_it_is_stored(started, story, monkeypatch):
    one, _ = started(session=None)
    write, away = one.scheduler.store.completions.write, threading.Event()
    tried = threading.Event()

    def fails(connection, completions):
        if away.is_set():
            tried.set()
            raise StoreUnavailable("gone for a moment")
        return write(connection, completions)

    monkeypatch.setattr(one.scheduler.store.completions, "write", fails)
    away.set()
    id = one.scheduler.add_async_job(jobs.add, args=[1])
    assert tried.wait(10)
    assert story.words[id] == "CS"
    away.clear()
    eventually(lambda: story.words[id] == "CSs")


@pytest.mark.parametrize("there_again", [False, True])
def test_an_interruption_by_an_outage_is_another_attempt(started, story, monkeypatch, there_again):
    monkeypatch.setattr(interruptions, "PAUSE", 0.05)
    one, _ = started()
    monkeypatch.setattr(one.scheduler.store, "works", lambda: there_again)
    times = []

    def outage(request):
        times.append(1)
        if len(times) == 1:
            raise StoreUnavailable("the store went away")

    jobs.hooks["outage"] = outage
    id = one.scheduler.add_async_job(jobs.hooked, args=["outage"])
    eventually(lambda: story.words[id] == "CSrSs", timeout=10)
    (retrying,) = story.of(JobRetrying)
    assert retrying.reason.startswith("StoreUnavailable: the store went away")
    assert retrying.reason.endswith("(crash 1)") == there_again


def test_an_interruption_that_lost_its_claim_meanwhile_tells_nothing(started, story, monkeypatch):
    one, daemon = started(settings={"scheduler.heartbeat": "10s", "scheduler.lease": "60s"})
    monkeypatch.setattr(one.scheduler.store, "works", lambda: False)

    def outage(request):
        table = one.store.tables.job
        with one.store.begin() as connection:
            connection.execute(update(table).values(owner=one.owner))
        raise StoreUnavailable("the store went away")

    jobs.hooks["outage"] = outage
    id = one.scheduler.add_async_job(jobs.hooked, args=["outage"])
    eventually(lambda: story.words[id] == "CS")
    assert daemon.stop(10)
    assert story.words[id] == "CS"


@on_sqlite
def test_what_does_not_end_in_time_is_another_attempt(started, story):
    one, daemon = started()
    jobs.gates["slow"] = threading.Event()
    id = one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    assert not daemon.stop(0)
    assert story.words[id] == "CSr"
    assert story.of(JobRetrying)[0].reason == telling.CUT_OFF
    jobs.gates["slow"].set()
    eventually(lambda: not daemon._executor.running())
    assert story.words[id] == "CSr"


def test_what_is_given_back_before_it_starts_tells_nothing(started, story):
    one, _ = started(settings={"scheduler.threads": "1"})
    jobs.gates["slow"] = threading.Event()
    slow, *others = one.scheduler.add_jobs(
        [{"func": jobs.wait, "args": ["slow"], "priority": 0}]
        + [{"func": jobs.add, "args": [number]} for number in range(3)]
    )

    def given_back():
        with one.store.read() as connection:
            found = one.store.jobs.list(connection, state="scheduled")
        return len(found) == 3 and all(job.claim_no for job in found)

    eventually(lambda: jobs.calls == ["slow"])
    # Claimed behind the slow job, or not at all: then the rest of this tells the same.
    eventually(lambda: given_back() or len(story.of(JobCreated)) == 1)
    jobs.gates["slow"].set()
    eventually(lambda: story.words == dict.fromkeys([slow, *others], "CSs"), timeout=10)


@on_sqlite
def test_a_job_of_a_delegator_tells_its_start_too(started, story):
    one, _ = started(settings={"scheduler.delegator": "tests.daemon.jobs.delegate"})
    taken = one.scheduler.add_async_job(jobs.add, args=[1])
    left = one.scheduler.add_async_job(jobs.two, args=[1, 2])
    broken = one.scheduler.add_async_job(jobs.two, args=[1])
    eventually(lambda: story.words == {taken: "CSs", left: "CSs", broken: "Cb"}, timeout=10)


@on_sqlite
def test_a_listener_that_raises_disturbs_neither_jobs_nor_the_daemon(started, story, caplog):
    def raises(event):
        raise ValueError("a listener's own")

    one, _ = started(
        configure=lambda config: config.add_subscriber(raises, DurableEvent),
        prepare=lambda one: one.scheduler.add_listener(raises),
    )
    ids = [one.scheduler.add_async_job(jobs.add, args=[number]) for number in range(5)]
    eventually(lambda: story.words == dict.fromkeys(ids, "CSs"))
    assert one.scheduler.get_job(ids[0]).state == "succeeded"
    messages = [record.getMessage() for record in caplog.records]
    assert sum(f"JobSucceeded of job {ids[0]}" in message for message in messages) == 2


@on_sqlite
def test_listeners_run_outside_of_jobs_and_may_ask_for_some(started, story):
    one, _ = started()
    found = []

    def follow(event):
        found.append((get_current_registry(), get_current_request(), in_job()))
        if event.job.func.endswith(":fail"):
            one.scheduler.add_async_job(jobs.rent, args=["from a listener"])

    one.scheduler.add_listener(follow, [JobFailed, JobStarted])
    one.scheduler.add_listener(follow, JobFailed)
    one.scheduler.add_async_job(jobs.fail)
    eventually(lambda: len(story.of(JobSucceeded)) == 1)
    assert one.rentals() == 1
    assert found == [(one.scheduler.registry, None, False)], "the last add counts"


@on_sqlite
def test_listeners_come_and_go_while_the_daemon_runs(started, story):
    one, _ = started()
    first, second = Story(), Story()
    one.scheduler.add_listener(first, JobSucceeded)
    one.scheduler.add_async_job(jobs.add, args=[1])
    eventually(lambda: first.events)
    one.scheduler.remove_listener(first)
    one.scheduler.add_listener(second, JobSucceeded)
    one.scheduler.add_async_job(jobs.add, args=[2])
    eventually(lambda: second.events)
    assert len(first.events) == 1
    assert len(second.events) == 1
    assert [type(event) for event in first.events + second.events] == [JobSucceeded] * 2


@on_sqlite
def test_a_listener_that_is_added_under_a_running_job_hears_of_its_end(started, story):
    one, _ = started()
    one.scheduler.remove_listener(story)
    jobs.gates["slow"] = threading.Event()
    id = one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    one.scheduler.add_listener(story)
    jobs.gates["slow"].set()
    eventually(lambda: story.words[id] == "Ss")


@pytest.fixture
def made(monkeypatch):
    """The events that are made, and how often that was begun."""
    made, put = [], event_queue.EventQueue.put
    monkeypatch.setattr(
        event_queue.EventQueue, "put", lambda self, event: (made.append(event), put(self, event))
    )
    describe = telling.event_job
    counted = []
    monkeypatch.setattr(
        telling, "event_job", lambda *args, **more: counted.append(1) or describe(*args, **more)
    )
    return made, counted


def busy(one):
    """Run a job of each kind and wait until all have ended."""
    each = [{**job, "max_attempts": 1} for _, job in EACH if job["func"] is not jobs.rent]
    ids = one.scheduler.add_jobs([*each, {"func": jobs.rent, "args": ["a ski"]}])
    eventually(
        lambda: (
            not any(
                job and job.state in ("scheduled", "running")
                for job in map(one.scheduler.get_job, ids)
            )
        ),
        timeout=20,
    )


@on_sqlite
def test_nothing_is_made_while_nobody_listens(started, story, made):
    one, daemon = started(prepare=lambda one: one.scheduler.remove_listener(story))
    busy(one)
    daemon.stop(10)
    assert made == ([], [])
    assert not daemon._telling._started
    assert not daemon._telling._ends
    assert "durable-events" not in {thread.name for thread in threading.enumerate()}


@on_sqlite
def test_only_what_is_heard_is_made(started, story, made):
    one, daemon = started(prepare=lambda one: one.scheduler.add_listener(story, JobBroken))
    busy(one)
    daemon.stop(10)
    assert [type(event) for event in made[0]] == [JobBroken] * 2
    assert len(made[1]) == 2
    assert not daemon._telling._started
    assert not daemon._telling._ends


def test_run_due_tells_the_same(bench, story):
    one = bench(settings=FAST)
    one.scheduler.add_listener(story)
    expected = {}
    for word, job in EACH:
        job = {**job, "args": ["a ski"]} if job["func"] is jobs.rent else job
        (id,) = one.scheduler.add_jobs([job])
        expected[id] = word
        if "Sr" in word:
            expected[id] = "CSr"
        one.scheduler.run_due()
        with one.store.begin() as connection:
            connection.execute(one.store.tables.job.delete())
            connection.execute(jobs.Rental.__table__.delete())
    # All of it has been heard when run_due returns.
    assert story.words == expected
    assert not story.of(DaemonEvent)


def test_run_due_removes_and_tells_it(bench, story):
    one = bench(settings=FAST)
    one.scheduler.add_listener(story)
    ids = [
        one.scheduler.add_async_job(jobs.rent, args=["blue"]),
        one.scheduler.add_async_job(jobs.add, args=[1]),
        one.scheduler.add_async_job(jobs.fail),
    ]
    one.scheduler.run_due(delete_completed=True)
    assert [story.words[id] for id in ids] == ["CSsX", "CSsX", "CSf"]


@on_sqlite
def test_run_due_tells_what_an_outage_has_cut_short(bench, story):
    one = bench(settings=FAST)
    one.scheduler.add_listener(story)

    def outage(request):
        raise StoreUnavailable("the store went away")

    jobs.hooks["outage"] = outage
    id = one.scheduler.add_async_job(jobs.hooked, args=["outage"])
    one.scheduler.run_due()
    assert story.words[id] == "CSr"


def test_what_a_claim_puts_off_at_once_is_told_as_created(started, story):
    one, _ = started()
    jobs.gates["slow"] = threading.Event()
    ran = []

    def once(request):
        ran.append(1)
        if len(ran) == 1:
            assert jobs.gates["slow"].wait(20)
            raise ValueError("the first one fails, so its twin runs")

    jobs.hooks["once"] = once
    equal = {"func": jobs.hooked, "args": ["once"], "behavior": "RUN_ONCE"}
    first = one.scheduler.add_jobs([equal])[0]
    eventually(lambda: ran)
    twin = one.scheduler.add_jobs([equal])[0]

    def put_off():
        with one.store.read() as connection:
            job = one.store.jobs.get(connection, twin)
        return job.state == "scheduled" and job.claim_no

    eventually(put_off)
    eventually(lambda: story.words == {first: "CS", twin: "C"})
    jobs.gates["slow"].set()
    eventually(lambda: story.words == {first: "CSf", twin: "CSs"}, timeout=20)


def test_a_job_that_is_removed_while_it_runs_is_told_so_when_its_row_goes(started, story):
    one, _ = started()
    jobs.gates["slow"] = threading.Event()
    id = one.scheduler.add_async_job(jobs.wait, args=["slow"])
    eventually(lambda: jobs.calls == ["slow"])
    assert one.scheduler.remove_job(id)
    jobs.gates["slow"].set()
    eventually(lambda: story.words[id].endswith("X"), timeout=10)
    assert story.words[id] in ("CSsX", "CScX"), "it may have ended before it was stopped"
