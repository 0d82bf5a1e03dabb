"""What every store must do, whichever database it is on."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.records import Progress
from pyramid_durable.store import LOOKING, Store

from .acting import UTC, Make, add, claim, complete, ended, every, interval, stored
from .conftest import register


def test_an_added_job_is_read_back_as_it_went_in(store: Store, spec: Make) -> None:
    at = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    asked = spec(
        run_at=at, name="Müller 🚤", kind="date", priority=2, group="g", max_attempts=None,
        options={"timeout": 3.5, "backoff": {"kind": "x"}}, userdata='{"a":1}',
        payload='{"args":["' + "x" * 100_000 + 'é"]}',
    )  # fmt: skip
    add(store, asked)
    job = stored(store, asked.id)
    assert (job.run_at, job.due_at, job.name, job.kind) == (at, at, asked.name, "date")
    assert (job.priority, job.group, job.max_attempts) == (2, "g", None)
    assert (job.options, job.userdata, job.payload) == (
        asked.options,
        asked.userdata,
        asked.payload,
    )
    assert (job.state, job.attempt, job.claim_no, job.crashes) == ("scheduled", 0, 0, 0)
    assert abs(job.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_job_without_a_time_is_due_by_the_stores_clock(store: Store, spec: Make) -> None:
    now, later = spec(), spec(delay=3600.0)
    add(store, now, later)
    with store.read() as connection:
        clock = store.now(connection)
    assert timedelta(0) <= clock - stored(store, now.id).run_at < timedelta(seconds=30)
    assert abs(stored(store, later.id).run_at - clock - timedelta(hours=1)) < timedelta(seconds=30)
    assert [claimed.id for claimed in claim(store)] == [now.id]


def test_a_rolled_back_job_never_was(store: Store, spec: Make) -> None:
    lost = spec()
    with pytest.raises(RuntimeError), store.begin() as connection:
        store.jobs.add(connection, [lost])
        raise RuntimeError
    with store.read() as connection:
        assert store.jobs.get(connection, lost.id) is None
    assert claim(store) == []


def test_a_taken_id_is_a_duplicate_and_adds_nothing(store: Store, spec: Make) -> None:
    add(store, spec(id="mine", chosen_id=True))
    other = spec(id="other", chosen_id=True)
    with store.begin() as connection:
        with pytest.raises(DuplicateJob, match="'mine'") as caught:
            store.jobs.add(connection, [other, spec(), spec(id="mine", chosen_id=True)])
        assert caught.value.id == "mine"
        assert [job.id for job in store.jobs.list(connection)] == ["mine"]
        store.jobs.add(connection, [other])
    assert stored(store, "other").state == "scheduled"


def test_an_existing_job_can_be_replaced_unless_it_runs(store: Store, spec: Make) -> None:
    add(store, spec(id="mine", chosen_id=True, priority=1))
    add(store, spec(id="mine", chosen_id=True, priority=7, replace_existing=True))
    assert stored(store, "mine").priority == 7
    assert len(claim(store)) == 1
    with pytest.raises(DuplicateJob):
        add(store, spec(id="mine", chosen_id=True, replace_existing=True))


def test_a_waiting_key_binds_until_the_job_has_ended(store: Store, spec: Make) -> None:
    first = spec(waiting_key="k")
    add(store, first)
    with pytest.raises(DuplicateJob, match=first.id):
        add(store, spec(waiting_key="k"))
    [claimed] = claim(store)
    with pytest.raises(DuplicateJob):
        add(store, spec(waiting_key="k"))
    complete(store, ended(claimed, state="scheduled", delay=0.0))
    with pytest.raises(DuplicateJob):
        add(store, spec(waiting_key="k"))
    [claimed] = claim(store)
    complete(store, ended(claimed))
    add(store, spec(waiting_key="k"))


def test_claims_go_by_priority_then_time_and_stop_at_the_limit(store: Store, spec: Make) -> None:
    now = datetime.now(UTC)
    order = [(1, 5), (1, 3), (5, 60), (5, 2), (9, 600)]
    specs = [spec(priority=p, run_at=now - timedelta(seconds=s)) for p, s in order]
    add(store, *reversed(specs))
    expected = [one.id for one in specs]
    assert [one.id for one in claim(store, limit=2)] == expected[:2]
    assert [one.id for one in claim(store, limit=9)] == expected[2:]
    assert claim(store) == []


def test_a_claim_owns_and_numbers_what_it_takes(store: Store, spec: Make) -> None:
    asked = spec(max_attempts=3)
    add(store, asked)
    [claimed] = claim(store, owner="a")
    assert (claimed.owner, claimed.claim_no, claimed.attempt, claimed.max_attempts) == (
        "a",
        1,
        0,
        3,
    )
    job = stored(store, asked.id)
    assert (job.state, job.owner, job.due_at) == ("running", "a", None)
    complete(store, ended(claimed, state="scheduled", delay=0.0, errors='["boom"]', max_attempts=3))
    [again] = claim(store, owner="b")
    assert (again.claim_no, again.attempt, again.errors) == (2, 1, '["boom"]')


def test_future_jobs_other_queues_and_paused_queues_are_left_alone(
    store: Store, spec: Make
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    add(store, spec(run_at=later), spec(queue="mail"), spec(queue="slow"))
    with store.begin() as connection:
        connection.execute(store.tables.queue.insert().values(name="slow", paused=True))
    assert claim(store) == []
    assert [one.queue for one in claim(store, queues=("default", "mail", "slow"))] == ["mail"]
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    assert look.idle
    assert look.next_at is not None
    assert abs(look.next_at - later) < timedelta(milliseconds=1)


def test_a_claim_that_only_looks_so_far_keeps_no_writer_out(store: Store, spec: Make) -> None:
    add(store, spec(id="first"))
    with store.begin(LOOKING) as connection:
        look = store.looks.look(connection, ["default"])
        add(store, spec(id="second"))
        claims = store.claims.take(connection, "a", look, 10)
    # What the look has seen counts: the other was due only after it.
    assert [one.id for one in claims] == ["first"]
    assert [one.id for one in claim(store)] == ["second"]


def test_what_is_due_is_counted_up_to_a_number(store: Store, spec: Make) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    add(store, *(spec(priority=n % 2, kind="date", run_at=later) for n in range(4)))
    add(store, *(spec(priority=n % 2) for n in range(7)), spec(queue="mail"))
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
        numbers = [store.looks.number_due(connection, look, most) for most in (1, 4, 7, 100)]
    assert numbers == [1, 4, 7, 7]


def test_a_claim_tells_the_databases_clock_at_the_claim_not_at_the_look(
    store: Store, spec: Make
) -> None:
    add(store, spec())
    with store.begin(LOOKING) as connection:
        look = store.looks.look(connection, ["default"])
        seen = replace(look, answered=look.answered - 30)
        (one,) = store.claims.take(connection, "a", seen, 10)
    assert 30 <= (one.claimed_at - look.clock).total_seconds() < 60
    assert stored(store, one.id).started_at == one.claimed_at


def test_schedules_fire_as_of_the_claim_not_of_a_look_long_before(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=60)
    schedule = interval(spec(), 20.0, trigger=every(20.0, start), next_run_at=start)
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])
    with store.begin(LOOKING) as connection:
        look = store.looks.look(connection, ["default"])
        long_ago = look.clock - timedelta(seconds=30)
        seen = replace(look, now=long_ago, clock=long_ago)
        (one,) = store.claims.take(connection, "a", seen, 10)
    assert one.claimed_at >= look.clock
    with store.read() as connection:
        # All that was missed by now is one job, not one for then and one for now.
        assert not store.looks.look(connection, ["default"]).schedules_due


def test_jobs_born_in_a_claim_are_claimed_with_it_though_due_before_what_the_look_saw(
    store: Store, spec: Make
) -> None:
    add(store, spec(id="waiting", run_at=datetime.now(UTC) - timedelta(seconds=0.2)))
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 3600.0)])
    assert len(claim(store)) == 2


def test_what_became_due_before_what_the_look_saw_is_found_by_the_next_one(
    store: Store, spec: Make
) -> None:
    add(store, spec(id="seen"))
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    add(store, spec(id="earlier", run_at=datetime.now(UTC) - timedelta(days=1)))
    with store.begin() as connection:
        assert [one.id for one in store.claims.take(connection, "a", look, 10)] == ["seen"]
    assert [one.id for one in claim(store)] == ["earlier"]


def test_completions_are_written_in_one_batch(store: Store, spec: Make) -> None:
    specs = [spec() for _ in range(50)]
    add(store, *specs)
    claims = claim(store)
    ends = [ended(one, result=f'"{one.id}"', userdata='{"n":1}') for one in claims[:48]]
    ends.append(ended(claims[48], state="failed", errors='["Traceback: \\u00e9"]', attempt=2))
    at = datetime(2033, 1, 1, tzinfo=UTC)
    ends.append(ended(claims[49], state="scheduled", due_at=at))
    accepted = complete(store, *ends)
    assert accepted == {(one.id, 1) for one in claims}
    job = stored(store, claims[0].id)
    assert (job.state, job.result, job.userdata, job.owner) == (
        "succeeded",
        f'"{job.id}"',
        '{"n":1}',
        None,
    )
    assert job.started_at == claims[0].claimed_at
    assert job.finished_at is not None
    failed, waiting = stored(store, claims[48].id), stored(store, claims[49].id)
    assert (failed.state, failed.attempt, failed.errors) == ("failed", 2, '["Traceback: \\u00e9"]')
    assert (waiting.state, waiting.due_at, waiting.finished_at) == ("scheduled", at, None)


def test_ends_that_are_alike_are_written_together_whatever_the_ids(
    store: Store, spec: Make
) -> None:
    ids = [
        'say "so"',
        "back\\slash",
        "a,b",
        "{braces}",
        "NULL",
        "'; --",
        "Müller 🚤",
        " ",
        "line\n2",
    ]
    add(store, *(spec(id=id) for id in ids))
    claims = claim(store)
    another, *alike = [ended(one) for one in claims]
    assert complete(store, *alike, another._replace(result='"r"')) == {(id, 1) for id in ids}
    for one in claims:
        job = stored(store, one.id)
        assert (job.state, job.attempt, job.owner) == ("succeeded", 1, None)
        assert (job.started_at, job.result) == (
            one.claimed_at,
            '"r"' if one.id == another.id else None,
        )


@pytest.mark.parametrize("result", [None, '"r"'])
def test_of_many_completions_those_are_accepted_whose_claims_are_held(
    store: Store, spec: Make, result: str | None
) -> None:
    add(store, *(spec() for _ in range(6)))
    ends = [ended(one, result=result) for one in claim(store)]
    fences = [(one.id, one.claim_no) for one in ends]
    lost = [one._replace(claim_no=7) for one in ends]
    assert complete(store, *lost) == set()
    assert complete(store, ends[0], lost[1]) == {fences[0]}
    assert complete(store, *ends[:3], lost[3]) == set(fences[1:3])
    assert stored(store, ends[3].id).state == "running"
    assert complete(store, *ends[3:5], ends[4]) == set(fences[3:5])
    assert complete(store, ends[5], ends[5]) == {fences[5]}
    assert complete(store, *ends) == set()
    assert [stored(store, one.id).state for one in ends] == ["succeeded"] * 6


def test_a_write_without_the_fence_changes_nothing(store: Store, spec: Make) -> None:
    add(store, spec(), spec())
    one, two = claim(store)
    wrong = [ended(one, claim_no=7), ended(one, owner="b"), ended(two)]
    assert complete(store, *wrong) == {(two.id, 1)}
    assert stored(store, one.id).state == "running"
    assert complete(store, ended(two)) == set()
    assert complete(store, ended(one, owner="b", delete=True)) == set()
    assert complete(store, ended(one, delete=True)) == {(one.id, 1)}
    with store.read() as connection:
        assert store.jobs.get(connection, one.id) is None


def test_claims_of_different_numbers_are_released_together(store: Store, spec: Make) -> None:
    add(store, spec())
    (first,) = claim(store)
    with store.begin() as connection:
        store.holdings.release(connection, [first])
    add(store, spec(), spec())
    with store.begin(LOOKING) as connection:
        look = store.looks.look(connection, ["default"])
        claims = store.claims.take(connection, "a", look, 3, starting=0)
    assert sorted(one.claim_no for one in claims) == [1, 1, 2]
    with store.begin() as connection:
        # The first claim's number is not the job's any more; neither is another's owner.
        strange = claims[2]._replace(owner="somebody")
        assert store.holdings.release(connection, [first, claims[0], claims[1], strange]) == 2
        assert store.holdings.mark_started(connection, [first, *claims]) == 1


def test_released_jobs_are_due_again_and_lost_no_attempt(store: Store, spec: Make) -> None:
    add(store, spec(), spec())
    one, two = claim(store)
    with store.begin() as connection:
        assert store.holdings.release(connection, [one]) == 1
        assert store.holdings.release(connection, [two], delay=3600.0) == 1
        assert store.holdings.release(connection, [one]) == 0
    [again] = claim(store, owner="b")
    assert (again.id, again.attempt, again.claim_no) == (one.id, 0, 2)
    assert complete(store, ended(one)) == set()


def test_cancel_ends_what_waits_and_asks_what_runs(store: Store, spec: Make) -> None:
    waits, runs = spec(priority=9), spec(queue="mail")
    add(store, waits, runs)
    [claimed] = claim(store, queues=("mail",))
    with store.begin() as connection:
        assert not store.jobs.cancel(connection, waits.id, queue="mail")
        assert store.jobs.cancel(connection, waits.id, queue="default")
        assert not store.jobs.cancel(connection, waits.id)
        assert store.jobs.cancel(connection, runs.id)
        assert not store.jobs.cancel(connection, runs.id)
        assert not store.jobs.cancel(connection, "unknown")
        assert store.jobs.cancel_requested(connection, [waits.id, runs.id]) == {runs.id}
    assert stored(store, waits.id).state == "cancelled"
    assert stored(store, runs.id).cancel_requested
    assert claim(store) == []
    assert complete(store, ended(claimed, state="cancelled"))


def test_progress_is_kept_beside_the_job(store: Store, spec: Make) -> None:
    asked = spec()
    add(store, asked)
    for done in (1.0, 2.0, 2.0):
        with store.begin() as connection:
            store.jobs.set_progress(
                connection, asked.id, Progress(done=done, total=3.0, message="é")
            )
    assert stored(store, asked.id).progress == Progress(done=2.0, total=3.0, message="é")


def test_listing_filters_and_counts(store: Store, spec: Make) -> None:
    specs = [spec(group="g"), spec(queue="mail"), spec(func="other:f", kind="date")]
    add(store, *specs)
    [mail] = claim(store, queues=("mail",))
    complete(store, ended(mail))
    with store.read() as connection:
        ids = lambda **by: [job.id for job in store.jobs.list(connection, **by)]  # noqa: E731
        assert ids() == [one.id for one in reversed(specs)]
        assert ids(limit=1) == [specs[2].id]
        assert ids(limit=1, offset=1) == ids(offset=1)[:1] == [specs[1].id]
        assert ids(group="g") == [specs[0].id]
        assert ids(func="other:f") == [specs[2].id]
        assert ids(state="succeeded") == ids(queue="mail") == [mail.id]
        assert len(ids(state=["succeeded", "scheduled"])) == 3
        assert store.stats.counts(connection) == {
            "default": {"scheduled": 2},
            "mail": {"succeeded": 1},
        }


def test_another_time_can_take_the_clocks_place(store: Store, spec: Make) -> None:
    later = datetime.now(UTC) + timedelta(days=30)
    waits = spec(run_at=later)
    add(store, waits, spec(run_at=later + timedelta(days=1)))
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 60.0, next_run_at=later)])
        look = store.looks.look(connection, ["default"], now=later)
        claims = store.claims.take(connection, "a", look, 10)
        clock = store.now(connection)
    assert waits.id in {one.id for one in claims}
    assert {one.schedule_id for one in claims} == {None, "s"}
    assert all(abs(one.claimed_at - clock) < timedelta(minutes=1) for one in claims)


def test_two_daemons_never_claim_one_job(store: Store, spec: Make) -> None:
    add(store, *[spec() for _ in range(400)])
    taken: list[str] = []
    lock = threading.Lock()

    def work(owner: str) -> None:
        while claims := claim(store, owner=owner, limit=13):
            with lock:
                taken.extend(one.id for one in claims)

    threads = [threading.Thread(target=work, args=(f"d{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rest = claim(store, limit=400)
    taken.extend(one.id for one in rest)
    assert len(taken) == len(set(taken)) == 400


def test_a_due_schedule_makes_a_job_and_advances_in_the_claim(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(kind="interval"), 3600.0, iterations=5)])
    [claimed] = claim(store)
    assert (claimed.schedule_id, claimed.kind) == ("s", "interval")
    assert claimed.fire_at == claimed.run_at
    with store.read() as connection:
        schedule = store.schedules.get(connection, "s")
    assert schedule is not None
    assert schedule.next_run_at == claimed.run_at + timedelta(hours=1)
    assert (schedule.last_run_at, schedule.iterations_left) == (claimed.run_at, 4)
    assert claim(store) == []


def test_a_crash_in_the_claim_leaves_neither_job_nor_advance(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 3600.0)])
        before = store.schedules.get(connection, "s")
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    assert look.schedules_due
    with pytest.raises(RuntimeError), store.begin() as connection:
        assert store.claims.take(connection, "a", look, 10)
        raise RuntimeError
    with store.read() as connection:
        assert store.jobs.list(connection) == []
        assert store.schedules.get(connection, "s") == before


def test_one_schedule_never_fires_twice_for_one_time(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 3600.0, max_instances=None)])
        before = select(store.tables.schedule.c.due_at)
        at = connection.execute(before).scalar_one()
    assert len(claim(store)) == 1
    with store.begin() as connection:
        connection.execute(update(store.tables.schedule).values(due_at=at, next_run_at=at))
    assert claim(store) == []


def test_a_schedule_does_not_overlap_itself(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 0.001)])
    [first] = claim(store)
    assert claim(store) == []
    complete(store, ended(first))
    assert len(claim(store)) == 1


def test_a_schedule_that_cannot_be_read_is_set_aside(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(
            connection,
            [interval(spec(), 60.0, id="bad", trigger={"kind": "moon"}), interval(spec(), 60.0)],
        )
    assert [one.schedule_id for one in claim(store)] == ["s"]
    with store.read() as connection:
        assert store.looks.look(connection, ["default"]).idle
        error = connection.execute(
            select(store.tables.schedule.c.error).where(store.tables.schedule.c.id == "bad")
        ).scalar_one()
    assert "moon" in error


def test_a_cancelled_schedule_fires_no_more(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 60.0)])
        with pytest.raises(DuplicateJob, match="'s'"):
            store.schedules.add(connection, [interval(spec(), 5.0)])
        assert store.schedules.cancel(connection, "s")
        assert not store.schedules.cancel(connection, "s")
    assert claim(store) == []


def test_the_work_of_a_dead_daemon_is_rescued(store: Store, spec: Make) -> None:
    register(store, "dead")
    register(store, "alive")
    add(store, *[spec(queue="q") for _ in range(2)], *[spec() for _ in range(2)])
    lost = claim(store, owner="dead", queues=("q",))
    kept = claim(store, owner="alive")
    with store.begin() as connection:
        store.holdings.release(connection, lost[1:])
        long_ago = store.now(connection) - timedelta(seconds=60)
        daemon = store.tables.daemon
        connection.execute(
            update(daemon).where(daemon.c.incarnation == "dead").values(heartbeat_at=long_ago)
        )
    with store.begin() as connection:
        rescued = store.daemons.rescue(connection, lease=15.0, poison_limit=3)
    assert {(one.id, one.crashes, one.ended) for one in rescued} == {
        (lost[0].id, 1, False),
    }
    assert complete(store, ended(lost[0])) == set()
    again = claim(store, owner="alive", queues=("q",))
    assert {(one.id, one.attempt) for one in again} == {(one.id, 0) for one in lost}
    assert len(complete(store, *map(ended, kept))) == 2
    with store.begin() as connection:
        assert not store.daemons.beat(connection, "dead")
        assert store.daemons.beat(connection, "alive")
        assert [one.label for one in store.daemons.list(connection)] == ["alive"]


def test_a_claim_committed_after_its_daemon_was_given_up_is_found(store: Store, spec: Make) -> None:
    add(store, spec())
    [late] = claim(store, owner="never registered")
    with store.begin() as connection:
        [rescued] = store.daemons.rescue(connection, lease=15.0, poison_limit=3)
    assert rescued.id == late.id


def test_a_job_that_kills_its_daemons_ends_as_failed(store: Store, spec: Make) -> None:
    asked = spec(waiting_key="k")
    add(store, asked)
    for crash in (1, 2):
        claims = claim(store, owner=f"d{crash}")
        with store.begin() as connection:
            assert len(claims) == 1
            store.daemons.rescue(connection, lease=15.0, poison_limit=2)
    job = stored(store, asked.id)
    assert (job.state, job.crashes, job.attempt) == ("failed", 2, 0)
    assert "died 2 times" in (job.errors or "")
    add(store, spec(waiting_key="k"))


def test_what_waits_behind_others_is_not_charged_for_a_crash(store: Store, spec: Make) -> None:
    add(store, *(spec() for _ in range(4)))
    with store.read() as connection:
        look = store.looks.look(connection, ["default"])
    with store.begin() as connection:
        claims = store.claims.take(connection, "gone", look, 4, starting=1)
    assert [one.started for one in claims] == [True, False, False, False]
    with store.begin() as connection:
        assert store.holdings.mark_started(connection, claims[1:2]) == 1
        assert store.holdings.mark_started(connection, claims[1:2]) == 0
        rescued = store.daemons.rescue(connection, lease=15.0, poison_limit=3)
    crashes = {job.id: job.crashes for job in rescued}
    assert [crashes[one.id] for one in claims] == [1, 1, 0, 0]
    with store.begin() as connection:
        assert store.holdings.mark_started(connection, claims[2:]) == 0, "the claim is gone"


def test_what_is_cut_short_counts_as_a_crash_under_its_fence(store: Store, spec: Make) -> None:
    asked = spec(max_attempts=1)
    add(store, asked)
    [first] = claim(store)
    with store.begin() as connection:
        [freed] = store.daemons.interrupt(connection, [first], poison_limit=2)
        assert (freed.crashes, freed.ended) == (1, False)
        assert not store.daemons.interrupt(connection, [first], poison_limit=2)
    [second] = claim(store)
    assert (second.attempt, second.crashes) == (0, 1)
    with store.begin() as connection:
        assert not store.daemons.interrupt(connection, [first], poison_limit=2)
        [freed] = store.daemons.interrupt(connection, [second], poison_limit=2)
    assert freed.ended
    assert stored(store, asked.id).state == "failed"


def test_a_server_ends_our_short_transactions_when_their_client_falls_silent(
    store: Store, spec: Make
) -> None:
    limits = {
        "postgresql": "SELECT current_setting('idle_in_transaction_session_timeout')",
        "mysql": "SELECT @@idle_write_transaction_timeout",
        "sqlite": "SELECT 'no server'",
    }
    question = text(limits[store.engine.dialect.name])
    limited = {"10s", 10, "no server"}
    add(store, spec(), spec())
    register(store, "me")
    with store.begin() as connection:
        assert store.daemons.beat(connection, "me")
        assert connection.execute(question).scalar_one() in limited
    claims = claim(store, owner="me")
    for one in claims:
        with store.begin() as connection:
            store.completions.write(connection, [ended(one)])
            assert connection.execute(question).scalar_one() in limited
    with Session(store.engine) as session:
        # One that lasts as long as an application's transaction.
        store.dialect.let_idle(session.connection())
        assert session.execute(question).scalar_one() in {"0", 0, "no server"}
    with store.begin() as connection:
        store.daemons.rescue(connection, lease=15.0, poison_limit=3)
        assert connection.execute(question).scalar_one() in limited


def test_more_than_a_packet_holds_is_added_in_parts(store: Store, spec: Make) -> None:
    text = '{"args":["' + "x" * 1_500_000 + '"]}'
    many = [spec(payload=text) for _ in range(16)]
    add(store, *many)
    assert [stored(store, one.id).payload for one in many] == [text] * 16


def test_the_schema_matches_its_migrations(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    store.ensure_schema(create=False)
    mine = set(store.tables.metadata.tables)
    with store.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, parents: kind != "table" or name in mine,
                "compare_type": True,
            },
        )
        assert compare_metadata(context, store.tables.metadata) == []


def test_an_engine_on_the_same_database_is_recognised(store: Store, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from sqlalchemy import create_engine

    same = create_engine(store.url)
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    assert store.is_held_by(store.engine)
    assert store.is_held_by(same)
    assert not store.is_held_by(other)
    same.dispose()


def test_several_processes_may_migrate_at_once(store: Store) -> None:
    failures: list[BaseException] = []

    def migrate() -> None:
        try:
            fresh = Store(store.url.render_as_string(hide_password=False), prefix=store.prefix)
            fresh.migrate()
            fresh.dispose()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with store.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def accounts(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        jobs = store.jobs.list(connection, schedule_id="s", state="expired")
    return [job.options["passed"] for job in jobs]


def test_missed_fire_times_are_accounted_for(store: Store, spec: Make) -> None:
    start = datetime.now(UTC) - timedelta(seconds=100)
    schedule = interval(spec(), 10.0, trigger=every(10.0, start), next_run_at=start)
    with store.begin() as connection:
        store.schedules.add(connection, [schedule])
    [claimed] = claim(store)
    assert claimed.fire_at == start + timedelta(seconds=100)
    [account] = accounts(store)
    assert (account["reason"], account["number"]) == ("coalesced", 10)
    assert datetime.fromisoformat(account["first"]) == start
    assert datetime.fromisoformat(account["last"]) == start + timedelta(seconds=90)


def test_one_account_grows_while_a_job_is_in_the_way(store: Store, spec: Make) -> None:
    with store.begin() as connection:
        store.schedules.add(connection, [interval(spec(), 0.001, coalesce=False)])
    first = claim(store)
    assert len(first) == 1
    assert [account["reason"] for account in accounts(store)] == ["overlap"]
    for _ in range(2):
        assert claim(store) == []
    [grown, _] = accounts(store)
    assert claim(store) == []
    [more, _] = accounts(store)
    assert more["first"] == grown["first"]
    assert more["number"] > grown["number"]
    complete(store, *map(ended, first))
    assert len(claim(store)) == 1
    assert claim(store) == []
    assert len(accounts(store)) == 3


def test_a_job_with_two_crashes_behind_it_is_claimed_alone(store: Store, spec: Make) -> None:
    now = datetime.now(UTC)
    suspect = spec(run_at=now - timedelta(seconds=5))
    others = [spec(run_at=now - timedelta(seconds=n)) for n in (9, 1)]
    add(store, suspect, *others)
    with store.begin() as connection:
        job = store.tables.job
        connection.execute(update(job).where(job.c.id == suspect.id).values(crashes=2))
    assert [one.id for one in claim(store)] == [one.id for one in others]
    assert [one.id for one in claim(store)] == [suspect.id]
    add(store, spec(), spec())
    with store.begin() as connection:
        connection.execute(update(job).values(owner=None, state="scheduled", due_at=now))
        connection.execute(update(job).where(job.c.id == suspect.id).values(priority=1))
    assert [one.id for one in claim(store)] == [suspect.id]
    assert len(claim(store)) == 4


def test_what_is_given_back_keeps_its_place(store: Store, spec: Make) -> None:
    now = datetime.now(UTC)
    specs = [spec(run_at=now - timedelta(seconds=9 - n)) for n in range(4)]
    add(store, *specs)
    first = claim(store, limit=2)
    with store.begin() as connection:
        store.holdings.release(connection, first)
    assert [one.id for one in claim(store)] == [one.id for one in specs]


def test_claims_of_a_daemon_are_known_and_given_back_by_their_fences(
    store: Store, spec: Make
) -> None:
    add(store, spec(), spec(), spec())
    one, two, three = claim(store, owner="a")
    complete(store, ended(three))
    with store.begin() as connection:
        owned = store.holdings.owned(connection, "a")
        assert owned == {(one.id, 1), (two.id, 1)}
        lost = {(one.id, 1), (two.id, 7), (three.id, 1)}
        assert store.holdings.release_owned(connection, "b", lost) == 0
        assert store.holdings.release_owned(connection, "a", lost) == 1
    assert [again.id for again in claim(store)] == [one.id]


def test_a_deleted_job_leaves_nothing_beside_it(store: Store, spec: Make) -> None:
    add(store, spec(id="import", chosen_id=True))
    [claimed] = claim(store)
    with store.begin() as connection:
        store.jobs.set_progress(connection, "import", Progress(done=1.0, total=None))
        assert store.jobs.cancel(connection, "import")
    complete(store, ended(claimed, delete=True))
    add(store, spec(id="import", chosen_id=True))
    job = stored(store, "import")
    assert (job.cancel_requested, job.progress) == (False, None)


def test_rescue_does_not_wait_for_a_daemon_that_is_beating(store: Store) -> None:
    if not store.dialect.skip_locked:
        return  # one writer: nobody beats beside the rescue
    register(store, "slow")
    with store.begin() as connection:
        long_ago = store.now(connection) - timedelta(seconds=60)
        connection.execute(update(store.tables.daemon).values(heartbeat_at=long_ago))
    with store.begin() as beating:
        assert store.daemons.beat(beating, "slow")
        with store.begin() as connection:
            assert store.daemons.rescue(connection, lease=15.0, poison_limit=3) == []
    with store.begin() as connection:
        assert [one.label for one in store.daemons.list(connection)] == ["slow"]


def test_a_url_is_shown_without_any_password() -> None:
    url = "postgresql+psycopg://app:one@h/db?user=app&password=two"
    assert Store(url).masked_url == "postgresql+psycopg://app:***@h/db"
