import json
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import transaction
from pyramid.threadlocal import get_current_request
from pyramid.threadlocal import manager as threadlocals

from pyramid_durable.current import in_job
from pyramid_durable.exceptions import LostClaim, UnknownFunction
from pyramid_durable.records import SCHEDULED
from tests.store.wire import recorded
from tests.web.site import Rental

from . import jobs


def test_a_function_runs_and_its_result_is_kept(bench):
    one = bench()
    outcome = one.run(jobs.add, 1, 2)
    assert outcome.result == 3
    assert jobs.calls == [(1, 2)]
    job = one.job
    assert (job.state, json.loads(job.result), job.attempt, job.errors) == ("succeeded", 3, 1, None)
    assert job.created_at <= job.started_at <= job.finished_at


@pytest.mark.parametrize("tm", ["explicit", "thread", None])
def test_a_job_has_a_real_request_and_a_transaction(bench, tm):
    one = bench(tm=tm, session=None)
    outcome = one.run(jobs.look, "word")
    assert outcome.error is None
    assert outcome.result == "word"
    (seen,) = jobs.calls
    assert seen.pop("tm").explicit
    assert seen.pop("attempt") == 1
    assert set(seen.values()) == {True}


def test_nothing_of_a_job_is_left_behind(bench):
    one = bench()
    before = transaction.manager.manager
    for func in (jobs.add, jobs.fail, jobs.leave, jobs.rent):
        one.scheduler.add_async_job(func, args=["x"] if func is jobs.rent else [])
        one.runner.run(one.claim())
        assert get_current_request() is None
        assert threadlocals.stack == []
        assert transaction.manager.manager is before
        assert not in_job()
    assert one.runner._running == {}
    assert one.site.engine.pool.checkedout() == 0


def test_an_exception_rolls_back_and_its_traceback_is_kept(bench):
    one = bench()
    outcome = one.run(jobs.rent, "ski", "fail")
    assert isinstance(outcome.error, ValueError)
    assert one.rentals() == 0
    job = one.job
    assert (job.state, job.attempt, job.result) == ("failed", 1, None)
    (error,) = json.loads(job.errors)
    assert error.startswith("Traceback")
    assert "ValueError: after it has written" in error
    assert "tests/daemon/jobs.py" in error
    assert "pyramid_durable" not in error


def test_leaving_is_a_failure_of_the_job_not_of_the_daemon(bench):
    one = bench()
    outcome = one.run(jobs.leave)
    assert isinstance(outcome.error, SystemExit)
    assert one.job.state == "failed"


def test_finished_callbacks_are_called_also_after_a_failure(bench):
    one = bench()
    one.run(jobs.finished)
    assert jobs.calls == ["finished"]


def test_a_job_added_when_the_request_has_ended_is_there(bench):
    one = bench()
    assert one.run(jobs.asking_at_its_end).state == "succeeded"
    with one.store.read() as connection:
        found = one.store.jobs.list(connection, state="scheduled")
    assert [job.func for job in found] == ["tests.daemon.jobs:add"]


# One transaction for data and completion, where they share a database.


@pytest.mark.parametrize("session", ["zope", "plain"])
@pytest.mark.parametrize("tm", ["explicit", "thread", None])
def test_the_end_is_part_of_the_jobs_own_transaction(bench, tm, session):
    one = bench(tm=tm, session=session)
    outcome = one.run(jobs.rent, "ski")
    assert (outcome.error, outcome.completion) == (None, None)
    assert one.rentals() == 1
    assert one.job.state == "succeeded"


@pytest.mark.parametrize("session", ["zope", "plain"])
def test_a_job_that_only_read_ends_as_well(bench, session):
    one = bench(session=session)
    outcome = one.run(jobs.count)
    assert (outcome.error, outcome.completion) == (None, None)
    assert one.job.state == "succeeded"


@pytest.mark.parametrize("session", ["zope", "plain"])
def test_on_another_database_the_end_is_written_apart(bench, session):
    one = bench(where="other", session=session)
    outcome = one.run(jobs.rent, "ski")
    assert outcome.error is None
    assert outcome.completion is not None
    assert one.rentals() == 1
    assert one.job.state == "succeeded"


def test_a_job_that_never_asks_for_the_session_does_not_make_one(bench):
    def configure(config):
        config.add_request_method(lambda request: pytest.fail("asked for"), "dbsession", reify=True)

    one = bench(session=None, configure=configure)
    outcome = one.run(jobs.add, 1)
    assert outcome.error is None
    assert outcome.completion is not None


@pytest.mark.parametrize("session", ["zope", "plain"])
def test_a_lost_claim_undoes_what_the_job_did(bench, session, caplog):
    one = bench(session=session)
    one.scheduler.add_async_job(jobs.rent, args=["ski"])
    claim = one.claim()
    with one.store.begin() as connection:
        one.store.holdings.release(connection, [claim])
    outcome = one.runner.run(claim)
    assert isinstance(outcome.error, LostClaim)
    assert outcome.completion is None
    assert one.rentals() == 0
    assert one.job.state == "scheduled"
    assert "is another daemon's now" in caplog.text


def test_a_flush_that_fails_at_the_commit_takes_the_end_with_it(bench):
    one = bench()
    outcome = one.run(jobs.rent, "ski", "rent again")
    assert outcome.error is not None
    assert one.rentals() == 0
    assert one.job.state == "failed"
    assert "IntegrityError" in one.job.errors


def test_a_job_that_commits_by_itself_ends_too(bench):
    one = bench()
    outcome = one.run(jobs.rent, "ski", "commit")
    assert outcome.error is None
    assert one.rentals() == 1
    assert one.job.state == "succeeded"


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("session", ["zope", "plain", None])
def test_jobs_that_a_job_asks_for_exist_when_it_commits(bench, where, session):
    one = bench(where=where, session=session)
    outcome = one.run(jobs.follow_up)
    assert outcome.error is None
    assert one.site.jobs() == ["tests.daemon.jobs:follow_up", "tests.daemon.jobs:nothing"]
    with one.store.read() as connection:
        done = one.store.jobs.list(connection, state="succeeded")
    assert [job.func for job in done] == ["tests.daemon.jobs:follow_up"]


@pytest.mark.parametrize("session", ["zope", "plain"])
def test_jobs_that_a_job_asks_for_are_written_before_its_end(bench, session):
    one = bench(session=session)
    one.run(jobs.rent, "ski")
    one.scheduler.remove_job(one.last.id)
    with recorded(one.site.engine) as wire:
        outcome = one.run(jobs.follow_up_many)
    assert (outcome.error, outcome.completion) == (None, None)
    words = [statement.split()[0] for statement, _ in wire.statements]
    written = [word for word in words if word in ("INSERT", "UPDATE")]
    assert written == ["INSERT", "INSERT", "UPDATE"]
    assert one.site.jobs() == ["tests.daemon.jobs:add"] * 10 + ["tests.daemon.jobs:follow_up_many"]


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("session", ["zope", "plain", None])
def test_jobs_that_a_failing_job_asks_for_do_not_exist(bench, where, session):
    one = bench(where=where, session=session)
    one.run(jobs.follow_up_and_fail)
    assert one.site.jobs() == ["tests.daemon.jobs:follow_up_and_fail"]


def test_a_follow_up_in_the_store_is_one_transaction_with_the_end_of_its_job(bench):
    one = bench(where="other", session="zope")
    one.scheduler.add_async_job(jobs.follow_up)
    claim = one.claim()
    with one.store.begin() as connection:
        one.store.holdings.release(connection, [claim])
    outcome = one.runner.run(claim)
    if isinstance(outcome.error, LostClaim):
        assert one.site.jobs() == ["tests.daemon.jobs:follow_up"]
    else:
        pytest.fail("the follow-up was committed although the claim was lost")


# Sentinels, retries, cancelling.


@pytest.mark.parametrize(
    ("then", "state", "rentals", "result"),
    [
        ("", "succeeded", 1, '"ski"'),
        ("ok", "succeeded", 1, None),
        ("ignore", "succeeded", 1, None),
        ("retry", "scheduled", 0, None),
    ],
)
def test_what_a_job_returns_can_say_how_it_ended(bench, then, state, rentals, result):
    one = bench()
    one.run(jobs.rent, "ski", then)
    job = one.job
    assert (job.state, job.result, one.rentals()) == (state, result, rentals)


def test_an_ordinary_exception_is_retried_while_attempts_are_left(bench):
    one = bench()
    one.run(jobs.fail, "first", max_attempts=2, backoff=60)
    job = one.job
    assert (job.state, job.attempt, job.max_attempts) == (SCHEDULED, 1, 2)
    assert timedelta(seconds=50) < job.due_at - job.started_at < timedelta(seconds=70)
    assert len(json.loads(job.errors)) == 1
    with one.store.begin() as connection:
        table = one.store.tables.job
        connection.execute(table.update().values(due_at=table.c.run_at))
    one.run_claimed()
    job = one.job
    assert (job.state, job.attempt) == ("failed", 2)
    assert len(json.loads(job.errors)) == 2


def test_retry_follows_its_own_delay_and_bound(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.again, kwargs={"delay": 7200, "max_attempts": 3})
    one.run_claimed()
    job = one.job
    assert (job.state, job.attempt, job.max_attempts) == (SCHEDULED, 1, 3)
    assert timedelta(minutes=115) < job.due_at - job.started_at < timedelta(minutes=125)


def test_retry_takes_a_date(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.again, kwargs={"date": "2099-01-01T00:00:00Z"})
    one.run_claimed()
    assert one.job.due_at.year == 2099


def test_a_retry_at_an_unreadable_date_is_a_failure_that_says_so(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.again, kwargs={"date": "whenever"})
    one.run_claimed()
    assert one.job.state == "failed"
    assert "whenever" in one.job.errors


def test_a_stored_backoff_that_cannot_be_read_ends_the_job(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.fail, max_attempts=5)
    with one.store.begin() as connection:
        table = one.store.tables.job
        connection.execute(table.update().values(options='{"backoff": "soon"}', errors="broken"))
    one.run_claimed()
    assert one.job.state == "failed"
    before, error = json.loads(one.job.errors)
    assert before == "broken"
    assert "'soon' is no backoff" in error


def test_a_job_can_cancel_itself(bench):
    one = bench()
    one.run(jobs.give_up)
    assert one.job.state == "cancelled"
    assert json.loads(one.job.errors) == ["not needed"]


# What cannot be run.


def test_an_expired_job_is_never_run(bench):
    one = bench()
    one.scheduler.add_date_job(jobs.add, "2020-01-01T00:00:00Z", expires="1h")
    one.run_claimed()
    assert jobs.calls == []
    job = one.job
    assert (job.state, job.attempt, job.started_at) == ("expired", 0, None)


def test_a_job_that_is_too_late_for_its_grace_is_not_run(bench):
    one = bench()
    one.scheduler.add_date_job(jobs.add, "2020-01-01T00:00:00Z", misfire_grace_time=60)
    one.run_claimed()
    assert jobs.calls == []
    assert one.job.state == "expired"


def rename(store, func):
    with store.begin() as connection:
        connection.execute(store.tables.job.update().values(func=func))


def test_an_unknown_function_is_left_to_others_and_broken_in_the_end(bench):
    one = bench(settings={"scheduler.unknown_grace": "0.2s"})
    one.scheduler.add_async_job(jobs.add)
    rename(one.store, "tests.daemon.jobs:gone")
    outcome = one.runner.run(one.claim())
    assert isinstance(outcome.error, UnknownFunction)
    assert outcome.completion is None
    assert outcome.give_back > 0
    with one.store.begin() as connection:
        table = one.store.tables.job
        connection.execute(table.update().values(owner=None, due_at=table.c.run_at))
    threading.Event().wait(0.25)
    one.run_claimed()
    job = one.job
    assert (job.state, job.attempt) == ("broken", 0)
    assert "gone" in job.errors


def test_arguments_that_cannot_be_read_break_the_job(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.add)
    with one.store.begin() as connection:
        connection.execute(one.store.tables.job.update().values(payload="{"))
    one.run_claimed()
    assert (one.job.state, one.job.attempt) == ("broken", 0)


def test_a_call_that_does_not_fit_the_signature_breaks_the_job(bench):
    one = bench()
    one.run(jobs.two, 1)
    assert one.job.state == "broken"
    assert "missing 1 required positional argument" in one.job.errors


def test_a_type_error_inside_the_function_is_its_failure(bench):
    one = bench()
    one.run(jobs.mistaken)
    assert (one.job.state, one.job.attempt) == ("failed", 1)


def test_a_result_that_cannot_be_stored_undoes_nothing(bench, caplog):
    one = bench()
    one.run(jobs.unstorable)
    assert (one.job.state, one.job.result) == ("succeeded", None)
    assert "its result is not kept" in caplog.text


# Routines, coroutines, entities, delegators.


def test_a_routine_is_made_checked_and_run(bench):
    one = bench()
    assert one.run(jobs.LateFee, "blue").result == "fee for blue"
    assert one.job.state == "succeeded"


def test_a_routine_that_is_not_valid_any_more_is_cancelled(bench):
    one = bench()
    one.run(jobs.LateFee, "blue", False)
    assert one.job.state == "cancelled"
    assert jobs.calls == []


def test_a_routine_whose_constructor_fails_is_broken(bench):
    one = bench()
    one.run(jobs.LateFee, "unknown")
    assert one.job.state == "broken"
    assert "no such ski" in one.job.errors


def test_a_coroutine_runs(bench):
    one = bench()
    assert one.run(jobs.later, "word").result == "word True"
    assert jobs.calls == [one.job.id]


def rented(one, ski):
    """A rental, added by a view; and a job about it from another view."""

    def body(request):
        request.dbsession.add(Rental(ski=ski))

    def ask(request):
        rental = request.dbsession.query(Rental).filter_by(ski=ski).one()
        request.scheduler.add_async_job(jobs.is_rental, args=[rental])

    one.site.get(body)
    one.site.get(ask)


def test_a_mapped_object_is_loaded_again_in_the_jobs_session(bench):
    one = bench()
    rented(one, "blue")
    assert one.run_claimed().result == "Rental blue"


def test_a_job_about_an_object_that_is_gone_is_broken(bench):
    one = bench()
    rented(one, "blue")
    with one.site.engine.begin() as connection:
        connection.execute(Rental.__table__.delete())
    one.run_claimed()
    assert one.job.state == "broken"
    assert "does not exist any more" in one.job.errors


def test_a_delegator_may_run_the_job_itself(bench):
    one = bench(settings={"scheduler.delegator": "tests.daemon.jobs.delegate"})
    one.run(jobs.add, 1)
    assert one.job.state == "succeeded"
    assert jobs.calls == [("add", (1,), {})]
    jobs.calls.clear()
    with one.store.begin() as connection:
        connection.execute(one.store.tables.job.delete())
    assert one.run(jobs.two, 1, 2).result == 3


# current_job().


def test_userdata_is_kept_also_when_the_attempt_fails(bench):
    one = bench()
    one.run(jobs.remember, "times", True, userdata={"times": 1}, max_attempts=2, backoff=0)
    assert json.loads(one.job.userdata) == {"times": 2}
    one.run_claimed()
    assert json.loads(one.job.userdata) == {"times": 3}


@pytest.mark.parametrize("where", ["same", "other"])
@pytest.mark.parametrize("func", [jobs.count_runs, jobs.count_saved_runs])
def test_userdata_lasts_from_run_to_run_of_a_schedule(bench, where, func):
    one = bench(where=where)
    id = one.scheduler.add_interval_job(
        func, hours=1, run_immediately=True, userdata={"runs": 5}, id="often"
    )
    assert one.run_claimed().result == 6
    one.fire(id)
    assert one.run_claimed().state == "failed"
    one.fire(id)
    assert one.run_claimed().result == 8
    assert one.rentals() == 2


def test_userdata_that_was_saved_and_taken_back_is_what_the_next_run_gets(bench):
    one = bench()
    id = one.scheduler.add_interval_job(
        jobs.save_and_take_back, hours=1, run_immediately=True, userdata={"n": 1}
    )
    assert one.run_claimed().result == {"n": 1}
    one.fire(id)
    assert json.loads(one.claim().userdata) == {"n": 1}


def test_progress_shows_the_last_report(bench):
    one = bench()
    one.run(jobs.progress, 2000)
    progress = one.job.progress
    assert (progress.done, progress.total, progress.message) == (2000, 2000, "counting")


def test_progress_of_a_job_that_has_written_does_not_block_it(bench):
    one = bench()
    outcome = one.run(jobs.progress_while_writing)
    assert outcome.error is None
    assert one.rentals() == 1
    assert one.job.progress.message == "written"


@pytest.mark.parametrize("writing", [False, True])
def test_userdata_can_be_saved_in_the_midst_of_a_job(bench, writing):
    one = bench()
    outcome = one.run(jobs.save_userdata, writing)
    assert outcome.error is None
    assert outcome.result == {"steps": 1}
    assert json.loads(one.job.userdata) == {"steps": 1}


def test_reschedule_makes_another_job_like_this_one(bench):
    one = bench()
    outcome = one.run(jobs.reschedule, "word", name="named", group="g")
    assert outcome.error is None
    with one.store.read() as connection:
        copy = one.store.jobs.get(connection, outcome.result)
        original = one.store.jobs.list(connection, state="succeeded")[0]
    assert (copy.func, copy.payload, copy.name) == (original.func, original.payload, "named")
    assert (copy.group, copy.priority, original.priority) == ("g", 1, 5)
    assert copy.due_at > original.finished_at


def test_a_running_job_hears_that_it_should_stop(bench):
    one = bench()
    one.scheduler.add_async_job(jobs.wait, args=["slow"])
    jobs.gates["slow"] = threading.Event()
    claim = one.claim()
    done = SimpleNamespace(outcome=None)
    thread = threading.Thread(target=lambda: setattr(done, "outcome", one.runner.run(claim)))
    thread.start()
    from .fakes import eventually

    attempt = eventually(lambda: one.runner._running.get(claim.id))
    eventually(lambda: attempt.current is not None)
    assert not attempt.current.cancel_requested
    one.runner.ask_to_cancel([claim.id, "another"])
    assert attempt.current.cancel_requested
    jobs.gates["slow"].set()
    thread.join(10)
    assert done.outcome.result == "slow"


def test_delete_completed_removes_what_succeeded_and_nothing_else(bench):
    one = bench()
    for func in (jobs.rent, jobs.add, jobs.fail):
        one.scheduler.add_async_job(func, args=["x"] if func is jobs.rent else [])
        outcome = one.runner.run(one.claim(), delete_completed=True)
        if outcome.completion is not None:
            with one.store.begin() as connection:
                one.store.completions.write(connection, [outcome.completion])
    assert one.site.jobs() == ["tests.daemon.jobs:fail"]
    assert one.rentals() == 1


@pytest.mark.parametrize("codec", ["os:system", "tests.daemon.jobs", "pickle"])
def test_a_row_cannot_name_the_module_that_reads_it(bench, codec):
    one = bench()
    id = one.scheduler.add_async_job(jobs.add, args=[1])
    with one.store.begin() as connection:
        connection.execute(one.store.tables.job.update().values(codec=codec))
    outcome = one.run_claimed()
    assert (outcome.state, jobs.calls) == ("broken", [])
    why = "needs scheduler.secret" if codec == "pickle" else f"by the serializer '{codec}'"
    assert why in one.scheduler.get_job(id).error
