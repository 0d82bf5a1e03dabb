"""pyramid_scheduler's own usage text, typed into a fresh application; its two slips corrected:
the missing quote of the include, and the interval job that it adds with add_date_job."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

from .deployment import deployed, wait_for

FRESH_APPLICATION = """
import time

from pyramid.config import Configurator
from pyramid.response import Response


def main(global_config, **settings):
  config = Configurator(settings=settings)
  config.include('pyramid_durable')
  for view in (handle_request_quickly, handle_request_now, handle_request_often):
    config.add_route(view.__name__, '/' + view.__name__)
    config.add_view(view, route_name=view.__name__, renderer='string')
  return config.make_wsgi_app()


# create an asynchronous task
def slow_process(name, id):
  with open(name, 'a') as out:
    out.write(str(id))

def handle_request_quickly(request):
  request.registry.scheduler.add_async_job(slow_process, args=(request.params['file'], 2))

# schedule a deferred task for one hour from now
def delayed_process():
  raise AssertionError('too early')

def handle_request_now(request):
  import time
  request.registry.scheduler.add_date_job(delayed_process, time.time() + 3600)

# do something every 10 minutes
def interval_process(reason=None):
  raise AssertionError('too early')

def handle_request_often(request):
  request.registry.scheduler.add_interval_job(interval_process, minutes=10)
"""


def test_the_usage_text_works_in_a_fresh_application(tmp_path: Path) -> None:
    (tmp_path / "fresh_application.py").write_text(FRESH_APPLICATION)
    settings = {"scheduler__combined": "true", "scheduler__queues": "jobs"}
    place = deployed(tmp_path, "fresh_application:main", "sqlite", "embedded", **settings)
    with place as app:
        app.start("pserve", name="web")
        wait_for("the web server", app.answers)
        done = tmp_path / "done.txt"
        for path in (f"handle_request_quickly?file={done}", "handle_request_now"):
            assert urllib.request.urlopen(f"{app.url}/{path}", timeout=20).status == 200
        began = time.time()
        assert urllib.request.urlopen(f"{app.url}/handle_request_often", timeout=20).status == 200
        wait_for("the slow process", lambda: done.exists() and done.read_text() == "2")
        waiting = "SELECT func, kind, queue, strftime('%s', run_at) FROM durable_job WHERE state = 'scheduled'"
        [(func, kind, queue, run_at)] = app.ask(waiting)
        assert (func, kind, queue) == ("fresh_application:delayed_process", "date", "jobs")
        assert abs(int(run_at) - began - 3600) < 60
        schedules = "SELECT func, kind, strftime('%s', next_run_at) FROM durable_schedule"
        [(func, kind, next_run_at)] = app.ask(schedules)
        assert (func, kind) == ("fresh_application:interval_process", "interval")
        assert abs(int(next_run_at) - began - 600) < 60
