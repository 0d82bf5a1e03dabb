"""A machine that calls the store in any order, as daemons and an application would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import update

from pyramid_durable.exceptions import DuplicateJob
from pyramid_durable.policies import SUSPECT_CRASHES
from pyramid_durable.records import (
    CANCELLED,
    ENDED,
    FAILED,
    RUNNING,
    SCHEDULED,
    SUCCEEDED,
    Claim,
    Completion,
    JobSpec,
    Progress,
    ScheduleSpec,
)
from pyramid_durable.store import Store
from pyramid_durable.triggers import interval_trigger

from .conftest import register
from .laws import Picture, check_picture, check_schedule, check_step, take_picture

UTC = timezone.utc
QUEUES = ("default",)
LEASE = 15.0
POISON_LIMIT = 4
LATER = 5000.0
"""Seconds until a delayed job or attempt is due: further away than a run of the test takes."""

EVERY = timedelta(seconds=600)
SHOOT_AHEAD = (0, 0, 0, 4000, 5500, 9000)
"""Seconds by which a claim is ahead of the database's clock, so that schedules fire."""

ENDINGS = (SUCCEEDED, FAILED, SCHEDULED, "later", "delete")

daemons = st.sampled_from("abc")
picks = st.integers(0, 5)
some_picks = st.lists(picks, min_size=1, max_size=3, unique=True)
undos = st.integers(0, 4)


class Undo(Exception):
    """Rolls a transaction back, as a crash before its commit does."""


class Laws(RuleBasedStateMachine):
    """Three daemons and an application call the store in any order.

    The model knows every claim that was ever handed out, and which of them still counts; a write
    with any other must change nothing.

    Which of several jobs a claim takes may be the database's choice, so no rule's precondition
    depends on it: hypothesis wants the same rules to be open whenever it repeats a run.
    """

    store: Store

    @initialize()
    def empty(self) -> None:
        with self.store.begin() as connection:
            for table in self.store.tables.metadata.sorted_tables:
                if table is not self.store.tables.meta:
                    connection.execute(table.delete())
        self.specs: dict[str, JobSpec] = {}
        self.schedules: dict[str, ScheduleSpec] = {}
        self.handed: list[Claim] = []
        self.started: list[Claim] = []
        self.holder: dict[str, Claim] = {}
        self.asked: set[str] = set()
        self.doomed: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.attempts: dict[str, int] = {}
        self.deleted: dict[str, set[datetime]] = {}
        self.silent: set[str] = set()
        self.registered: set[str] = set()
        self.born = dict.fromkeys("abc", 0)
        self.picture = take_picture(self.store)
        for name in "abc":
            self._register(name)
        # From the start there is what most rules need: waiting jobs, a key, a claim of each daemon.
        keys = (None, "k", None, None, "l", None)
        specs = [make_spec(f"j{number}", waiting_key=key) for number, key in enumerate(keys)]
        with self.store.begin() as connection:
            self.store.jobs.add(connection, specs)
        self._added(specs)
        self._look()
        for name in "abc":
            self._claim(name, 1)

    # What an application does.

    @rule(
        priority=st.integers(0, 2),
        delay=st.sampled_from((0.0, 0.0, LATER)),
        key=st.sampled_from((None, None, "k", "l")),
        beside=st.booleans(),
        undone=st.integers(0, 3),
    )
    def add(self, priority: int, delay: float, key: str | None, beside: bool, undone: int) -> None:
        number = len(self.specs)
        spec = make_spec(f"j{number}", priority=priority, delay=delay, waiting_key=key)
        specs = [make_spec(f"j{number}+"), spec] if beside else [spec]
        bound = {row["waiting_key"] for row in self.picture.jobs.values()} - {None}
        try:
            with self.store.begin() as connection:
                self.store.jobs.add(connection, specs)
                if not undone:
                    raise Undo
        except DuplicateJob:
            assert key in bound
            specs = []
        except Undo:
            specs = []
        else:
            assert key not in bound, f"two jobs wait with {key}"
        self._added(specs)
        assert {spec.id for spec in specs} <= self._look().jobs.keys()

    @rule(pick=picks, replace=st.booleans())
    def add_by_a_known_id(self, pick: int, replace: bool) -> None:
        id = recent(self.specs, pick)
        row = self.picture.jobs.get(id)
        spec = make_spec(id, chosen_id=True, replace_existing=replace)
        free = row is None or (replace and row["state"] != RUNNING)
        try:
            with self.store.begin() as connection:
                self.store.jobs.add(connection, [spec])
        except DuplicateJob:
            assert not free
            self._look()
        else:
            assert free, f"a job replaced {row}"
            self.doomed.discard(id)
            if row is None:
                # Its claims are numbered from 1 again, as nothing remembers a row that is gone.
                self.handed = [claim for claim in self.handed if claim.id != id]
            self._added([spec])
            self.numbers[id] = 0 if row is None else row["claim_no"]
            self.asked.discard(id)
            self._look(gone={id})

    @precondition(lambda self: len(self.schedules) < 2)
    @rule(
        coalesce=st.booleans(),
        max_instances=st.sampled_from((1, 2, None)),
        iterations=st.sampled_from((None, None, 3)),
    )
    def add_schedule(
        self, coalesce: bool, max_instances: int | None, iterations: int | None
    ) -> None:
        first = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        trigger = interval_trigger(
            seconds=EVERY.total_seconds(), start_date=first, now=first, zone=UTC
        )
        id = f"s{len(self.schedules)}"
        self.deleted[id] = set()
        self.schedules[id] = ScheduleSpec(
            id=id,
            job=make_spec(id, kind="interval"),
            kind="interval",
            trigger=trigger.to_json(),
            next_run_at=first,
            timezone="UTC",
            coalesce=coalesce,
            max_instances=max_instances,
            iterations=iterations,
        )
        with self.store.begin() as connection:
            self.store.schedules.add(connection, [self.schedules[id]])
        self._look()

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        id = recent(sorted(self.picture.jobs), pick)
        if id is None:
            return
        state = self.picture.jobs[id]["state"]
        with self.store.begin() as connection:
            known = self.store.jobs.cancel_requested(connection, [id])
            answer = self.store.jobs.cancel(connection, id)
            asked = self.store.jobs.cancel_requested(connection, [id])
        assert answer == (state == SCHEDULED or (state == RUNNING and not known))
        assert asked == (known | {id} if state == RUNNING else known)
        if state == RUNNING:
            self.asked.add(id)
        after = self._look({id} if state == SCHEDULED else ())
        assert after.jobs[id]["state"] == (CANCELLED if state == SCHEDULED else state)

    # What people do.

    @rule(pick=picks, verb=st.sampled_from(("pause", "pause", "resume", "run")), undone=undos)
    def hold_or_free(self, pick: int, verb: str, undone: int) -> None:
        id = recent(sorted(self.picture.jobs), pick)
        if id is None:
            return
        row = self.picture.jobs[id]
        waits, paused = row["state"] == SCHEDULED, id in self.picture.paused
        due = row["due_at"] is not None and row["due_at"] <= datetime.now(UTC)
        expected = {"pause": not paused, "resume": paused, "run": not due}[verb] and waits
        changed = self._change(verb, id, expected, undone)
        after = self._look(gone={id} if changed else ())
        assert after.jobs[id]["state"] == row["state"]
        if changed:
            assert (id in after.paused) == (verb == "pause")

    @rule(pick=picks, undone=undos)
    def retry(self, pick: int, undone: int) -> None:
        id = recent(sorted(self._own()), pick)
        if id is None:
            return
        row = self.picture.jobs[id]
        expected = row["state"] in ENDED and row["state"] != SUCCEEDED
        changed = self._change("retry", id, expected, undone)
        if changed:
            self.attempts[id] = 0
            self.asked.discard(id)
            self.doomed.discard(id)
            # These keys follow from no behavior, which is what a retry asks.
            self.specs[id] = self.specs[id]._replace(waiting_key=None)
        after = self._look(gone={id} if changed else ())
        if changed:
            new = after.jobs[id]
            assert (new["state"], new["attempt"], new["crashes"]) == (SCHEDULED, 0, 0)
            assert new["claim_no"] == row["claim_no"], "a number could come again"

    @rule(pick=picks, undone=undos)
    def remove(self, pick: int, undone: int) -> None:
        """A running job goes when it does not run any more: see ``sweep``."""
        id = recent(sorted(self._own()), pick)
        if id is None:
            return
        runs = self.picture.jobs[id]["state"] == RUNNING
        changed = self._change("remove", id, not (runs and id in self.doomed), undone)
        if changed:
            for ids in (self.asked, self.doomed):
                (ids.add if runs else ids.discard)(id)
        after = self._look(gone={id} if changed and not runs else ())
        assert (id in after.jobs) == (runs or not changed)

    @rule()
    def sweep(self) -> None:
        over = {id for id in self.doomed & self.picture.jobs.keys() if id not in self.holder}
        with self.store.begin() as connection:
            swept = self.store.job_changes.sweep(connection)
        assert {job.id for job in swept} == over
        self.doomed &= self.holder.keys()
        self.asked -= over
        after = self._look(gone=over)
        assert not over & after.jobs.keys()

    # What daemons do.

    @rule(
        name=daemons,
        limit=st.sampled_from((1, 2, 100)),
        ahead=st.sampled_from(SHOOT_AHEAD),
        dies=st.integers(0, 4),
        starting=st.sampled_from((None, 0, 1)),
    )
    def claim(self, name: str, limit: int, ahead: int, dies: int, starting: int | None) -> None:
        if dies:
            self._claim(name, limit, ahead, starting)
            return
        look, before = self._see(ahead), self.picture
        with pytest.raises(Undo), self.store.begin() as connection:
            self.store.claims.take(connection, self._incarnation(name), look, limit)
            raise Undo
        assert self._look() == before

    @precondition(lambda self: self.store.dialect.skip_locked)
    @rule(name=daemons, other=daemons, limit=st.integers(1, 3), ahead=st.sampled_from(SHOOT_AHEAD))
    def claim_at_once(self, name: str, other: str, limit: int, ahead: int) -> None:
        look = self._see(ahead)
        with self.store.begin() as one:
            first = self.store.claims.take(one, self._incarnation(name), look, limit)
            with self.store.begin() as two:
                second = self.store.claims.take(two, self._incarnation(other), look, limit)
        assert not {claim.id for claim in first} & {claim.id for claim in second}
        self._claimed(look, first, second)

    @rule(
        some=some_picks,
        late=some_picks,
        how=st.sampled_from(ENDINGS),
        undone=st.integers(0, 4),
    )
    def complete(self, some: list[int], late: list[int], how: str, undone: int) -> None:
        """Write ends in one batch, some of them perhaps with fences that are old."""
        claims = self._claims_of(some, self.holder.values()) + self._old_claims_of(late)
        ends = [end_of(claim, how) for claim in claims]
        current = [claim for claim in claims if self._counts(claim)]
        try:
            with self.store.begin() as connection:
                accepted = self.store.completions.write(connection, ends)
                if not undone:
                    raise Undo
        except Undo:
            self._look()
            return
        assert accepted == {(claim.id, claim.claim_no) for claim in current}
        ids = {claim.id for claim in current}
        for claim in current:
            del self.holder[claim.id]
            self.attempts[claim.id] += 1
            if how == "delete" and claim.fire_at is not None:
                self.deleted[str(claim.schedule_id)].add(claim.fire_at)
        after = self._look(ids, gone=ids if how == "delete" else ())
        for id in ids if how != "delete" else ():
            state = SCHEDULED if how == "later" else how
            stops = state == SCHEDULED and id in self.asked
            assert after.jobs[id]["state"] == (CANCELLED if stops else state)

    @rule(some=some_picks, name=daemons, retry=st.booleans(), late=st.sampled_from(ENDINGS))
    def hand_on(self, some: list[int], name: str, retry: bool, late: str) -> None:
        """Jobs go from one to another, or back to the same, and the first one writes once more."""
        if retry:
            self.complete(some, [], SCHEDULED, undone=1)
        else:
            self.give_back(some, delay=0.0)
        self._claim(name, 100)
        self.write_late([0, 1, 2], late)

    @rule(late=some_picks, how=st.sampled_from(ENDINGS))
    def write_late(self, late: list[int], how: str) -> None:
        claims = self._old_claims_of(late)
        with self.store.begin() as connection:
            assert not self.store.holdings.release(connection, claims)
            ends = [end_of(claim, how) for claim in claims]
            assert not self.store.completions.write(connection, ends)
            for claim in claims:
                assert not self.store.holdings.save_userdata(connection, claim, "late")
        self._look()

    @rule(some=some_picks, delay=st.sampled_from((0.0, LATER)))
    def give_back(self, some: list[int], delay: float) -> None:
        claims = self._claims_of(some, self.handed)
        current = [claim for claim in claims if self._counts(claim)]
        with self.store.begin() as connection:
            released = self.store.holdings.release(connection, claims, delay=delay)
        assert released == len(current)
        self._freed(current)

    @rule(pick=picks, name=daemons)
    def give_back_what_is_to_stop(self, pick: int, name: str) -> None:
        claim = recent(self.holder.values(), pick)
        if claim is None:
            return
        with self.store.begin() as connection:
            self.store.jobs.cancel(connection, claim.id)
            assert self.store.holdings.release(connection, [claim]) == 1
        self.asked.add(claim.id)
        self._freed([claim])
        self._claim(name, 100)

    @rule(pick=picks)
    def write_while_running(self, pick: int) -> None:
        claim = recent(self.handed, pick)
        if claim is None:
            return
        counts = self._counts(claim)
        with self.store.begin() as connection:
            progress = Progress(done=1.0, total=None)
            self.store.jobs.set_progress(connection, claim.id, progress)
            text = f'{{"claim":{len(self.handed)}}}'
            saved = self.store.holdings.save_userdata(connection, claim, text)
        assert saved or not counts, "a living claim's write was dropped"
        assert counts or not saved, "a write with an old fence was taken"
        self._look({claim.id} if counts else ())

    @rule(name=daemons, what=st.sampled_from(("beat", "fall silent", "sign off")))
    def daemon(self, name: str, what: str) -> None:
        """A daemon that was declared dead hears of it, and goes on as a new incarnation."""
        incarnation = self._incarnation(name)
        known = incarnation in self.registered
        with self.store.begin() as connection:
            if what == "beat":
                assert self.store.daemons.beat(connection, incarnation) == known
            elif what == "sign off":
                self.store.daemons.leave(connection, incarnation)
            else:
                daemon = self.store.tables.daemon
                ago = datetime.now(UTC) - timedelta(seconds=LEASE + 60)
                silence = update(daemon).where(daemon.c.incarnation == incarnation)
                connection.execute(silence.values(heartbeat_at=ago))
        self.silent.discard(incarnation)
        if what == "beat" and not known:
            self._register(name)
        elif what == "sign off":
            self.registered.discard(incarnation)
        elif what == "fall silent" and known:
            self.silent.add(incarnation)
        self._look()

    @rule()
    def rescue(self) -> None:
        with self.store.begin() as connection:
            rescued = self._rescue(connection)
        self._rescued(rescued)

    @rule(pick=picks)
    def a_process_dies_under_a_job(self, pick: int) -> None:
        """Its daemon lives on, and frees this one claim, if it still counts."""
        claim = recent(self.handed, pick)
        if claim is None:
            return
        counts = self._counts(claim)
        with self.store.begin() as connection:
            taken = self.store.daemons.interrupt(connection, [claim], poison_limit=POISON_LIMIT)
        assert len(taken) == counts
        if counts and claim not in self.started:
            self.started.append(claim)
        self._crashed(taken)

    @precondition(lambda self: self.store.dialect.skip_locked)
    @rule(pick=picks)
    def rescue_during_a_completion(self, pick: int) -> None:
        """A dead daemon's end that is about to commit stands; the rescue passes it over."""
        claim = recent(self.holder.values(), pick)
        if claim is None:
            return
        with self.store.begin() as one:
            assert self.store.completions.write(one, [end_of(claim, SUCCEEDED)])
            with self.store.begin() as two:
                rescued = self._rescue(two)
        assert claim.id not in {job.id for job in rescued}
        del self.holder[claim.id]
        self.attempts[claim.id] += 1
        self._rescued(rescued, also={claim.id})

    @rule(some=some_picks, old=st.booleans())
    def start(self, some: list[int], old: bool) -> None:
        claims = self._old_claims_of(some) if old else self._claims_of(some, self.holder.values())
        new = [claim for claim in claims if self._counts(claim) and claim not in self.started]
        with self.store.begin() as connection:
            assert self.store.holdings.mark_started(connection, claims) == len(new)
        self.started += new
        self._look({claim.id for claim in new})

    # What the clocks do.

    @rule()
    def time_passes(self) -> None:
        """What was to wait is due."""
        job = self.store.tables.job
        past = datetime.now(UTC) - timedelta(seconds=1)
        shift = update(job).where(job.c.due_at.is_not(None)).values(due_at=past)
        with self.store.begin() as connection:
            connection.execute(shift)
        self._look({id for id, row in self.picture.jobs.items() if row["due_at"] is not None})

    @precondition(lambda self: self.schedules)
    @rule(pick=picks, beats=st.integers(0, 3), cancel=st.integers(0, 4))
    def turn_a_schedule_back(self, pick: int, beats: int, cancel: int) -> None:
        """A clock was wrong, or a backup came back: fire times come up that came up before."""
        id = recent(self.schedules, pick)
        if not cancel:
            with self.store.begin() as connection:
                self.store.schedules.cancel(connection, id)
        first = self.schedules[id].next_run_at
        assert first is not None
        now_at = self.picture.schedules[id]["next_run_at"]
        if now_at is None:
            return
        at = max(first, now_at - beats * EVERY)
        table = self.store.tables.schedule
        turn = update(table).where(table.c.id == id).values(due_at=at, next_run_at=at)
        with self.store.begin() as connection:
            connection.execute(turn)
        self._look()

    # The model.

    def _change(self, verb: str, id: str, expected: bool, undone: int) -> bool:
        """Call a verb; tells whether it has changed something, and that was not rolled back."""
        try:
            with self.store.begin() as connection:
                answer = getattr(self.store.job_changes, verb)(connection, id)
                assert answer == (QUEUES[0] if expected else None), (verb, answer)
                if not undone:
                    raise Undo
        except Undo:
            return False
        return expected

    def _own(self) -> set[str]:
        """The jobs that the application has added by itself."""
        return {id for id, row in self.picture.jobs.items() if row["schedule_id"] is None}

    def _claim(self, name: str, limit: int, ahead: int = 0, starting: int | None = None) -> None:
        look, owner = self._see(ahead), self._incarnation(name)
        with self.store.begin() as connection:
            claims = self.store.claims.take(connection, owner, look, limit, starting=starting)
        self._claimed(look, claims, all_of_them=limit == 100)
        first = [claim.started for claim in claims]
        assert sum(first) <= (limit if starting is None else starting)
        assert first == sorted(first, reverse=True), "those that start at once stand first"

    def _register(self, name: str) -> None:
        self.born[name] += 1
        register(self.store, self._incarnation(name))
        self.registered.add(self._incarnation(name))
        self.picture = take_picture(self.store)

    def _incarnation(self, name: str) -> str:
        return f"{name}{self.born[name]}"

    def _added(self, specs: Iterable[JobSpec]) -> None:
        for spec in specs:
            self.specs[spec.id] = spec
            self.attempts[spec.id] = self.numbers[spec.id] = 0

    def _counts(self, claim: Claim) -> bool:
        return self.holder.get(claim.id) is claim

    def _claims_of(self, some: Sequence[int], claims: Iterable[Claim]) -> list[Claim]:
        known = list(claims)
        chosen = [recent(known, pick) for pick in some if known]
        return list({(claim.id, claim.owner, claim.claim_no): claim for claim in chosen}.values())

    def _old_claims_of(self, some: Sequence[int]) -> list[Claim]:
        old = [claim for claim in self.handed if not self._counts(claim)]
        # Those whose jobs are somebody else's by now are the most dangerous, and chosen first.
        return self._claims_of(some, sorted(old, key=lambda claim: claim.id in self.holder))

    def _see(self, ahead: int) -> Any:
        as_of = datetime.now(UTC) + timedelta(seconds=ahead) if ahead else None
        with self.store.read() as connection:
            return self.store.looks.look(connection, QUEUES, now=as_of)

    def _claimed(self, look: Any, *taken: Sequence[Claim], all_of_them: bool = False) -> None:
        claims = [claim for some in taken for claim in some]
        before, after = self.picture, take_picture(self.store)
        for id in after.jobs.keys() - before.jobs.keys():
            assert after.jobs[id]["schedule_id"] in self.schedules
            self.numbers[id] = self.attempts[id] = 0
        waited = {id for id, row in before.jobs.items() if row["state"] == SCHEDULED}
        # Asked to stop and given back: the claim ends them.
        stopped = {id for id in waited & self.asked if after.jobs[id]["state"] == CANCELLED}
        for id in stopped:
            assert after.jobs[id]["claim_no"] == self.numbers[id] + 1
            self.numbers[id] += 1
        due = {id for id in waited - before.paused if before.jobs[id]["due_at"] <= look.now}
        for claim in claims:
            known = before.jobs.get(claim.id)
            assert claim.id in due or (known is None and claim.fire_at <= look.now)
            assert claim.id not in self.asked, f"{claim}: it was asked to stop"
            assert claim.id not in self.holder, f"{claim} has {self.holder[claim.id]}"
            assert claim.claim_no > self.numbers[claim.id], f"{claim}: a number came again"
            assert claim.attempt == self.attempts[claim.id]
            self.handed.append(claim)
            if claim.started:
                self.started.append(claim)
            self.holder[claim.id] = claim
            self.numbers[claim.id] = claim.claim_no
        for some in taken:
            assert len(some) <= 1 or all(claim.crashes < SUSPECT_CRASHES for claim in some)
            assert [claim.priority for claim in some] == sorted(claim.priority for claim in some)
        given_back = {
            id
            for id, row in after.jobs.items()
            if row["state"] == SCHEDULED and row["claim_no"] > self.numbers[id]
        }
        suspects = [id for id in due if before.jobs[id]["crashes"] >= SUSPECT_CRASHES]
        assert suspects or not given_back, f"given back beside no suspect: {given_back}"
        for id in given_back:
            self.numbers[id] += 1
        if all_of_them and not suspects:
            assert due - stopped <= {claim.id for claim in claims}, (
                "a claim with room left something out"
            )
        self._look({claim.id for claim in claims} | given_back | stopped)

    def _freed(self, claims: Iterable[Claim]) -> None:
        ids = {claim.id for claim in claims}
        for id in ids:
            del self.holder[id]
        after = self._look(ids)
        assert all(after.jobs[id]["state"] == SCHEDULED for id in ids)

    def _rescue(self, connection: Any) -> Sequence[Any]:
        return self.store.daemons.rescue(connection, lease=LEASE, poison_limit=POISON_LIMIT)

    def _rescued(self, rescued: Sequence[Any], also: Iterable[str] = ()) -> None:
        self.registered -= self.silent
        self.silent.clear()
        dead = {id for id, claim in self.holder.items() if claim.owner not in self.registered}
        found = {job.id for job in rescued}
        # Beside a completion that is open, MariaDB locks more than its rows: they are next.
        assert found <= dead if also else found == dead
        after = self._crashed(rescued, also)
        assert after.daemons == self.registered

    def _crashed(self, rescued: Sequence[Any], also: Iterable[str] = ()) -> Picture:
        for job in rescued:
            claim = self.holder.pop(job.id)
            assert (job.owner, job.claim_no) == (claim.owner, claim.claim_no)
            started = claim in self.started
            assert job.crashes == claim.crashes + started, "a crash for what had not started"
            assert job.cancelled == (job.id in self.asked)
            assert job.ended == (started and job.crashes >= POISON_LIMIT and not job.cancelled)
        after = self._look({job.id for job in rescued}.union(also))
        for job in rescued:
            state = CANCELLED if job.cancelled else FAILED if job.ended else SCHEDULED
            assert after.jobs[job.id]["state"] == state
        return after

    def _look(self, touched: Iterable[str] = (), gone: Iterable[str] = ()) -> Picture:
        """Check the laws on what the step left, which touched these jobs and no others."""
        before, after = self.picture, take_picture(self.store)
        check_step(before, after, touched={*touched, *gone}, gone=set(gone))
        check_picture(after)
        for id, row in after.jobs.items():
            claim = self.holder.get(id)
            assert row["owner"] == (claim and claim.owner), f"{row} has not the owner of {claim}"
            assert row["claim_no"] == self.numbers[id]
            assert row["attempt"] == self.attempts[id], f"{id}: only finished attempts count"
            if id in self.specs and row["state"] not in ENDED:
                assert row["waiting_key"] == self.specs[id].waiting_key
        for id, schedule in self.schedules.items():
            assert schedule.next_run_at is not None
            limits = {
                "iterations": schedule.iterations,
                "max_instances": schedule.max_instances,
            }
            check_schedule(
                after,
                id,
                first=schedule.next_run_at,
                every=EVERY,
                deleted=self.deleted[id],
                **limits,
            )
        self.picture = after
        return after


def make_spec(id: str, **changes: Any) -> JobSpec:
    return JobSpec(id=id, func="tests.jobs:noop", payload="{}", queue="default", **changes)


def end_of(claim: Claim, how: str) -> Completion:
    return Completion(
        id=claim.id,
        owner=claim.owner,
        claim_no=claim.claim_no,
        state={"later": SCHEDULED, "delete": SUCCEEDED}.get(how, how),
        attempt=claim.attempt + 1,
        started_at=claim.claimed_at,
        delay={SCHEDULED: 0.0, "later": LATER}.get(how),
        delete=how == "delete",
        max_attempts=claim.max_attempts,
        userdata=claim.userdata,
    )


def recent(some: Iterable[Any], pick: int) -> Any:
    """One of the last few: what has just happened is where things go wrong. None of none."""
    known = list(some)
    return known[-1 - pick % min(len(known), 6)] if known else None
