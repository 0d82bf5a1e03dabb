"""What is stored, compared with what the code can run."""

from __future__ import annotations

import functools

import pytest
from sqlalchemy import update

from pyramid_durable import job
from pyramid_durable.checking import JOB, KEPT, OTHERS, SCHEDULE, Check
from pyramid_durable.records import JobSpec
from pyramid_durable.times import new_id
from tests.web.site import Rental, make_site

HERE = "tests.daemon.test_checking"
NO_ARGUMENTS = "[[],{}]"


def charge(amount, *, to="house"):
    pass


@job(pass_request=True, pass_job=True)
def with_request(request, running, ski):
    pass


def adds_an_argument(func):
    @functools.wraps(func)
    def call(*args):
        return func("added", *args)

    return call


@adds_an_argument
def decorated(added, ski):
    pass


class Place:
    """An application over the store, and what somebody else has put into it."""

    def __init__(self, store, **settings):
        self.store = store
        url = store.url.render_as_string(hide_password=False)
        names = {f"scheduler.{name}": value for name, value in settings.items()}
        self.site = make_site(store=store, app_url=url, settings=names, configure=self.configure)
        self.scheduler = self.site.scheduler

    def configure(self, config):
        config.add_job_alias("old.module:charge", charge)

    def put(self, func="charge", payload="[[5],{}]", number=1, **changes):
        func = func if ":" in func else f"{HERE}:{func}"
        changes = {"id": "some-job", "queue": "default", **changes}
        specs = [JobSpec(func=func, payload=payload, **changes)]
        specs += [specs[0]._replace(id=new_id()) for _ in range(number - 1)]
        with self.store.begin() as connection:
            self.store.jobs.add(connection, specs)

    def change_schedule(self, id, **values):
        table = self.store.tables.schedule
        with self.store.begin() as connection:
            connection.execute(update(table).where(table.c.id == id).values(values))

    def problems(self):
        return [str(problem) for problem in Check(self.scheduler).problems]


@pytest.fixture
def place(store):
    made = Place(store)
    yield made
    made.site.engine.dispose()
    made.scheduler.store.dispose()


def test_all_is_well(place):
    place.put(id="a")
    place.put("old.module:charge", id="b")
    place.put("with_request", '[["ski"],{}]', id="c", userdata='{"seen":1}')
    place.put("decorated", '[["ski"],{}]', id="d")
    place.scheduler.add_cron_job(charge, hour=3, args=[1])
    place.scheduler.add_interval_job(charge, hours=3, kwargs={"amount": 1, "to": "Ada"})
    check = Check(place.scheduler)
    assert check.problems == []
    assert check.looked_at == {JOB: 4, SCHEDULE: 2}


@pytest.mark.parametrize(
    ("func", "why"),
    [("renamed", "has no attribute 'renamed'"), ("gone.module:f", "there is no module 'gone'")],
)
def test_an_unknown_function_is_one_problem_however_many_jobs(place, func, why):
    place.put(func, number=3, id="0-first")
    (problem,) = place.problems()
    assert why in problem
    assert problem.endswith(": 3 jobs, such as 0-first")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("[[5],", "cannot be read"),
        ('{"not": "a call"}', "not those of a call"),
        ('[[{"!":"entity","c":"gone.models:Ski","v":[1]}],{}]', "cannot be read"),
        ("[[],{}]", "missing a required argument: 'amount'"),
        ("[[1,2],{}]", "too many positional arguments"),
        ('[[1],{"from":"Ada"}]', "unexpected keyword argument 'from'"),
    ],
)
def test_arguments_that_cannot_be_used(place, payload, why):
    place.put(payload=payload)
    (problem,) = place.problems()
    assert problem.startswith(f"{HERE}:charge: it")
    assert why in problem
    assert problem.endswith(": 1 job, such as some-job")


def test_mapped_objects_among_arguments_are_not_loaded(place):
    body = []

    def rent(request):
        rental = Rental(ski="one")
        request.dbsession.add(rental)
        request.dbsession.flush()
        body.append(request.registry.scheduler.add_async_job(charge, args=[rental]))
        request.dbsession.delete(rental)

    place.site.get(rent)
    assert (place.site.rentals(), len(body)) == (0, 1)
    assert place.problems() == []


def test_what_else_keeps_a_job_from_running(place):
    place.put(id="a", codec="gone.module:serializer")
    place.put(id="b", queue="post")
    place.put(id="c", userdata="{")
    codec, queue, userdata = sorted(place.problems(), key=lambda problem: problem[-1])
    assert "gone.module:serializer" in codec
    assert "queue 'post' is not among the configured ones, scheduler.queues = default mail" in queue
    assert "its arguments: " in userdata


def test_schedules_are_checked_as_jobs_are(place):
    id = place.scheduler.add_cron_job(charge, hour=3, args=[1], id="nightly")
    for values, why in (
        ({"trigger_json": "{"}, "its trigger: "),
        ({"trigger_json": '{"kind": "sundial"}'}, "its trigger: "),
        ({"func": f"{HERE}:gone"}, "has no attribute 'gone'"),
        ({"payload": NO_ARGUMENTS}, "missing a required argument"),
        ({"queue": "post"}, "queue 'post'"),
    ):
        with place.store.read() as connection:
            before = connection.execute(place.store.tables.schedule.select()).one()._mapping
        place.change_schedule(id, **values)
        (problem,) = place.problems()
        assert why in problem
        assert problem.endswith(": 1 schedule, such as nightly")
        place.change_schedule(id, **{name: before[name] for name in values})
    assert place.problems() == []


def test_what_may_not_run_is_unknown(store):
    place = Place(store, allow="tests.web")
    place.put()
    (problem,) = place.problems()
    assert "is not below one of scheduler.allow" in problem
    place.site.engine.dispose()
    place.scheduler.store.dispose()


def test_where_a_delegator_calls_the_signature_is_its_own_matter(store):
    place = Place(store, delegator=f"{HERE}:charge")
    place.put(payload=NO_ARGUMENTS)
    assert place.problems() == []
    place.site.engine.dispose()
    place.scheduler.store.dispose()


def test_problems_that_all_differ_do_not_fill_the_memory(place):
    for number in range(KEPT + 5):
        place.put(payload=f'[[1],{{"wrong{number}":1}}]', id=f"job-{number:02}")
    problems = Check(place.scheduler).problems
    assert len(problems) == KEPT + 1
    (others,) = [problem for problem in problems if problem.text == OTHERS]
    assert (others.count, others.example) == (5, f"job-{KEPT:02}")


def test_a_problem_is_one_line_whatever_it_quotes(place):
    place.put("gone.module:a\nb", id="line\nbreak")
    (problem,) = place.problems()
    assert "\n" not in problem
