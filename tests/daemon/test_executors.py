import threading

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED

from pyramid_durable.executors import DurableThreadExecutor
from pyramid_durable.outcomes import Outcome
from pyramid_durable.pacing import LONGEST_WAIT
from pyramid_durable.records import FAILED, SUCCEEDED
from pyramid_durable.runs import Handful, Run, Runs

from .fakes import NOON, Clock, FakeScheduler, claim, eventually

DONE = Outcome(state=SUCCEEDED)


class Bench:
    """An executor on a clock that is turned, whose jobs run until they are let go."""

    def __init__(self, threads=2, perform=None, may_start=lambda claim: True):
        self.clock = Clock()
        self.scheduler = FakeScheduler()
        self.started = []
        self.gates = {}
        self.executor = DurableThreadExecutor(
            perform or self.perform, threads=threads, may_start=may_start, clock=self.clock
        )
        self.executor.start(self.scheduler, "default")

    def perform(self, claim, waited, leave):
        self.started.append(claim.id)
        gate = self.gates.get(claim.id)
        if gate is not None:
            assert gate.wait(10)
        return DONE

    def submit(self, *ids, slow=False, crashes=0):
        for id in ids:
            if slow:
                self.gates[id] = threading.Event()
            runs = Runs([Run(claim(id, crashes=crashes), NOON, self.clock())])
            self.executor.submit_job(Handful(runs, NOON), [NOON])

    def finish(self, *ids):
        for id in ids:
            self.gates[id].set()

    def running(self):
        return {run.claim.id for run, _ in self.executor.running()}

    def idle(self):
        return not self.executor.running() and not self.executor.waiting


@pytest.fixture
def bench():
    benches = []

    def make(**options):
        benches.append(Bench(**options))
        return benches[-1]

    yield make
    for each in benches:
        each.finish(*each.gates)
        each.executor.shutdown(wait=True)


def test_every_job_runs_once(bench):
    one = bench(threads=4)
    ids = [f"job-{number}" for number in range(2000)]
    one.submit(*ids)
    eventually(lambda: len(one.scheduler.events) == 2000)
    assert sorted(one.started) == sorted(ids)


def test_all_threads_work_at_the_same_time(bench):
    barrier = threading.Barrier(4)

    def perform(claim, waited, leave):
        barrier.wait(10)
        return DONE

    one = bench(threads=4, perform=perform)
    one.submit("a", "b", "c", "d")
    eventually(lambda: len(one.scheduler.events) == 4)


def test_a_thread_is_found_however_often_it_has_gone_to_sleep(bench):
    one = bench(threads=3)
    for number in range(300):
        one.submit(f"job-{number}")
        eventually(lambda number=number: len(one.scheduler.events) == number + 1)


def test_listeners_hear_how_a_run_ended(bench):
    error = ValueError("no")

    def perform(claim, waited, leave):
        return Outcome(state=FAILED, error=error) if claim.id == "bad" else DONE

    one = bench(threads=1, perform=perform)
    one.submit("good", "bad")
    eventually(lambda: len(one.scheduler.events) == 2)
    good, bad = one.scheduler.events
    assert (good.code, good.job_id) == (EVENT_JOB_EXECUTED, "good#1")
    assert (bad.code, bad.job_id, bad.exception) == (EVENT_JOB_ERROR, "bad#1", error)


def test_a_defect_of_the_runner_costs_no_thread(bench, caplog):
    def perform(claim, waited, leave):
        if claim.id == "bad":
            raise SystemExit(1)
        return DONE

    one = bench(threads=1, perform=perform)
    one.submit("bad", "good")
    eventually(lambda: len(one.scheduler.events) == 1)
    assert "job bad: the runner failed" in caplog.text


def test_room_shrinks_as_slow_jobs_hold_threads_up(bench):
    one = bench(threads=2)
    assert one.executor.room() == 42
    one.submit("a", slow=True)
    eventually(lambda: one.running() == {"a"})
    assert one.executor.room() == 41
    one.clock.now += 1
    assert one.executor.room() == 21
    one.submit("b", slow=True)
    eventually(lambda: one.running() == {"a", "b"})
    one.clock.now += 1
    assert one.executor.room() == 0


def test_a_freed_thread_wakes_the_scheduler_where_there_was_no_room(bench):
    one = bench(threads=1)
    one.submit("a", slow=True)
    eventually(lambda: one.running() == {"a"})
    one.clock.now += 1
    assert one.executor.room() == 0
    assert one.scheduler.wakeups == 0
    one.finish("a")
    eventually(lambda: one.scheduler.wakeups == 1)
    assert one.executor.room() > 0


def test_no_job_wakes_the_scheduler_where_there_was_less_than_room(bench):
    one = bench(threads=2)
    assert one.executor.room()
    one.executor.fed(full=False)
    one.submit(*"abcdef")
    eventually(lambda: len(one.scheduler.events) == 6 and one.idle())
    assert one.scheduler.wakeups == 0


def test_after_a_full_claim_the_scheduler_is_woken_once_while_the_buffer_runs_low(bench):
    one = bench(threads=1)
    assert one.executor.room() == 21
    one.executor.fed(full=True)
    one.submit("first", slow=True)
    one.submit(*"bcdef")
    one.finish("first")
    eventually(lambda: len(one.scheduler.events) == 6 and one.idle())
    assert one.scheduler.wakeups == 1


def test_claims_behind_slow_jobs_are_given_back(bench):
    one = bench(threads=1)
    one.submit("slow", slow=True)
    eventually(lambda: one.running() == {"slow"})
    one.submit("a", "b")
    one.clock.now += LONGEST_WAIT / 2
    one.submit("young")
    assert one.executor.take_back() == []
    one.clock.now += LONGEST_WAIT * 0.6
    assert [each.id for each in one.executor.take_back()] == ["a", "b"]
    assert one.executor.waiting == 1
    one.finish("slow")
    eventually(one.idle)
    assert one.started == ["slow", "young"]


def test_nothing_starts_on_a_lease_that_is_not_held(bench):
    one = bench(may_start=lambda claim: claim.id != "lost")
    one.submit("lost", "held")
    eventually(lambda: len(one.scheduler.events) == 1)
    eventually(one.idle)
    assert one.started == ["held"]
    assert [each.id for each in one.executor.take_back()] == ["lost"]


def test_closing_lets_running_jobs_end_and_hands_the_others_back(bench):
    one = bench(threads=1)
    one.submit("running", slow=True)
    eventually(lambda: one.running() == {"running"})
    one.submit("waiting")
    one.executor.close()
    one.submit("late")
    assert one.executor.room() == 0
    assert sorted(each.id for each in one.executor.take_back()) == ["late", "waiting"]
    assert one.running() == {"running"}
    one.finish("running")
    eventually(one.idle)
    assert one.started == ["running"]


def test_waiting_for_running_jobs_ends_at_the_timeout_or_in_a_hurry(bench):
    one = bench(threads=1)
    hurry = threading.Event()
    assert one.executor.wait(1, hurry)
    one.submit("slow", slow=True)
    eventually(lambda: one.running() == {"slow"})
    assert not one.executor.wait(0, hurry)
    hurry.set()
    assert not one.executor.wait(60, hurry)
    one.finish("slow")
    eventually(one.idle)
    assert one.executor.wait(60, hurry)


def test_while_a_suspect_runs_there_is_no_room(bench):
    one = bench(threads=4)
    one.submit("suspect", slow=True, crashes=2)
    eventually(lambda: one.running() == {"suspect"})
    assert one.executor.room() == 0
    assert not one.executor.is_quiet()
    one.clock.now += 11
    assert one.executor.room() > 0
    assert not one.executor.is_quiet()
    one.finish("suspect")
    eventually(one.idle)
    assert one.executor.is_quiet()
    eventually(lambda: one.executor.room() >= 4)


def test_a_daemon_is_quiet_when_only_what_proved_harmless_runs(bench):
    one = bench(threads=4)
    one.submit("long", slow=True)
    eventually(lambda: one.running() == {"long"})
    assert not one.executor.is_quiet()
    one.clock.now += 11
    assert one.executor.is_quiet()


class Watch:
    """Stands for the judgement of a thread that stands by: says what it is told, and counts."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0

    def __call__(self, jobs, *, seconds, late):
        self.asked += 1
        return self.answer


def test_a_second_thread_stands_by_until_it_is_needed(bench, monkeypatch):
    watch = Watch(False)
    monkeypatch.setattr("pyramid_durable.crew.needs_another", watch)
    one = bench(threads=3)
    one.submit("a", "b", slow=True)
    eventually(lambda: watch.asked >= 3)
    assert one.running() == {"a"}
    watch.answer = True
    eventually(lambda: one.running() == {"a", "b"})


def test_a_thread_too_many_leaves_what_waits_to_the_others(bench, monkeypatch):
    watch = Watch(True)
    monkeypatch.setattr("pyramid_durable.crew.needs_another", watch)
    one = bench(threads=3)
    one.submit("a", "b", slow=True)
    eventually(lambda: one.running() == {"a", "b"})
    watch.answer = False
    one.submit("c", slow=True)
    eventually(lambda: one.executor._crew._too_many)
    one.finish("a")
    eventually(lambda: one.running() == {"b"})
    asked = watch.asked
    eventually(lambda: watch.asked >= asked + 3)
    assert one.running() == {"b"}
    one.finish("b")
    eventually(lambda: one.running() == {"c"})


def test_what_waits_when_the_last_thread_ends_its_job_is_taken(bench, monkeypatch):
    monkeypatch.setattr("pyramid_durable.crew.needs_another", Watch(False))
    one = bench(threads=2)
    for number in range(200):
        ids = [f"{number}-{each}" for each in range(5)]
        one.submit(*ids)
        eventually(lambda number=number: len(one.scheduler.events) == 5 * number + 5)


def test_nobody_waits_for_a_thread_that_sleeps_where_no_other_works(bench):
    one = bench(threads=2)
    # What a thread that stands by holds; this one would look again in an hour.
    with one.executor._crew._standing_by:
        for number in range(50):
            one.submit(f"job-{number}")
            eventually(lambda number=number: len(one.scheduler.events) == number + 1)


def test_only_one_claim_starts_at_once(bench):
    one = bench(threads=4)
    assert one.executor.starting == 1
    one.submit("a", slow=True)
    eventually(lambda: one.running() == {"a"})
    assert one.executor.starting == 0
