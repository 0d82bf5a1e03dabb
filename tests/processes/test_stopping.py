"""Jobs in processes of their own: they can be ended for good, and take nobody along."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from pyramid.paster import bootstrap

from tests.daemon.story import LETTERS

from . import application, stopping
from .deployment import Deployment, deployed, wait_for

APP = "tests.processes.stopping:main"
FAST = {
    "scheduler__heartbeat": "200ms",
    "scheduler__lease": "5s",
    "scheduler__poll_interval": "200ms",
    "scheduler__threads": "3",
    "scheduler__shutdown_timeout": "20s",
    "scheduler__poison_limit": "2",
}


class Served:
    """A deployment with a daemon, and the application in this process to ask for jobs."""

    def __init__(self, made: Deployment) -> None:
        self.made = made
        self.folder = made.folder
        application.metadata.create_all(made.engine)
        assert made.run("pscheduler", "--migrate") == 0
        self.daemon = made.start("pscheduler")
        environment = bootstrap(str(made.ini))
        environment["closer"]()
        self.scheduler = environment["registry"].scheduler
        self.numbers = iter(range(1, 1000))

    def start(self) -> None:
        self.daemon = self.made.start("pscheduler")

    def path(self) -> str:
        return str(self.folder / f"said{next(self.numbers)}")

    def add(self, func: Any, *args: Any, **options: Any) -> str:
        id: str = self.scheduler.add_async_job(
            func, args=list(args), **{"executor": "process", **options}
        )
        return id

    def ended(self, id: str) -> Any:
        def look() -> Any:
            job = self.scheduler.get_job(id)
            return job if job.state not in ("scheduled", "running") else None

        return wait_for(f"the end of job {id}", look)

    def said(self, path: str) -> list[int]:
        """The processes that said something, when there is at least one."""

        def look() -> list[int]:
            lines = Path(path).read_text() if Path(path).exists() else ""
            return [int(line.split()[0]) for line in lines.splitlines() if line.endswith((" ", ""))]

        return wait_for(f"word at {path}", look)  # type: ignore[no-any-return]

    def told(self, id: str) -> list[tuple[int, str, str]]:
        """What was told of a job: by which process, the letter of the event, its reason."""
        story = self.folder / "story"
        lines = [line.split(" ", 3) for line in story.read_text().splitlines()]
        return [
            (int(pid), LETTERS[event], reason) for pid, about, event, reason in lines if about == id
        ]

    def word(self, id: str) -> str:
        return "".join(letter for _, letter, _ in self.told(id))

    def log(self) -> str:
        return self.made.log(self.daemon)

    @property
    def pid(self) -> int:
        return self.made.processes[self.daemon].pid


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("stopping")
    settings = {**FAST, "application__story": str(folder / "story")}
    with deployed(folder, APP, "postgresql", "redis", **settings) as made:
        served = Served(made)
        yield served
        served.scheduler.store.dispose()


def lives(pid: int) -> bool:
    """Whether a process is there, and not only waiting to be noticed."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(*pids: int) -> Callable[[], bool]:
    return lambda: not any(map(lives, pids))


def test_a_job_in_a_process_of_its_own_has_everything(served: Served) -> None:
    id = served.scheduler.add_async_job(stopping.everything, args=[1])
    job = served.ended(id)
    assert job.state == "succeeded", job.error
    pid, followed, current, aps = job.result
    assert pid != served.pid
    assert lives(pid)
    assert (current, aps) == (True, None)
    assert job.userdata == {"number": 1}
    assert (job.progress.done, job.progress.message) == (1, "half")
    served.ended(followed)
    assert sorted(served.made.ask("SELECT number FROM ran WHERE number < 3")) == [(1,), (2,)]
    # The next one finds the process ready.
    assert (
        served.ended(served.scheduler.add_async_job(stopping.everything, args=[11])).result[0]
        == pid
    )


def test_a_timeout_ends_the_process_and_the_daemon_goes_on(served: Served) -> None:
    path = served.path()
    job = served.ended(served.add(stopping.compute, path, timeout=0.3))
    assert (job.state, job.attempt) == ("failed", 1)
    assert "JobTimeout: it was stopped after its timeout of 0.3 s" in job.error
    wait_for("the end of the process", gone(*served.said(path)))
    assert served.ended(served.add(application.nothing)).state == "succeeded"


def test_a_timeout_counts_an_attempt_and_is_tried_again(served: Served) -> None:
    path = served.path()
    id = served.add(stopping.write_and_loop, 3, path, timeout=0.3, max_attempts=2, backoff=0)
    job = served.ended(id)
    assert (job.state, job.attempt, len(job.errors)) == ("failed", 2, 2)
    # It could be interrupted where it was: the process is as good as before.
    first, second = served.said(path)
    assert "in write_and_loop" in job.error
    assert lives(first)
    assert first == second
    assert served.made.ask("SELECT * FROM ran WHERE number = 3") == []


def test_a_process_that_dies_is_a_crash_of_its_job_alone(served: Served) -> None:
    path, beside = served.path(), served.path()
    slow = served.add(stopping.until_asked, beside)
    served.said(beside)
    id = served.add(stopping.die, path, "SIGSEGV")
    job = served.ended(id)
    assert (job.state, job.attempt) == ("failed", 0)
    assert "died 2 times while it ran, or its process" in job.error
    assert len(served.said(path)) == 2
    assert f"job {id}: the process that ran it died of signal 11" in served.log()
    assert served.scheduler.get_job(slow).state == "running"
    assert served.scheduler.cancel_job(slow)
    assert served.ended(slow).result == "stopped by itself"


def test_after_one_crash_it_runs_again_and_has_used_up_no_attempt(served: Served) -> None:
    path = served.path()
    job = served.ended(served.add(stopping.die_once, path))
    assert (job.state, job.attempt, job.result) == ("succeeded", 1, "the second time")
    assert len(served.said(path)) == 2


def test_the_daemon_tells_the_events_of_its_processes_jobs(served: Served) -> None:
    path = served.path()
    slow = served.add(stopping.until_asked, path)
    wait_for("the start", lambda: served.word(slow) == "CS")
    asleep = served.add(stopping.sleep, served.path())
    wait_for("the start", lambda: served.word(asleep) == "CS")
    assert served.scheduler.cancel_job(slow)
    assert served.scheduler.cancel_job(asleep)
    expected = {
        slow: "CSs",
        asleep: "CSc",
        served.add(application.nothing, 1): "Cb",
        served.add(stopping.fail): "CSf",
        served.add(stopping.compute, served.path(), timeout=0.3): "CSf",
        served.add(stopping.die, served.path(), "SIGSEGV"): "CSrSf",
    }
    for id, word in expected.items():
        wait_for(f"the events of {id}", lambda one=id, word=word: served.word(one) == word)
    told = [each for id in expected for each in served.told(id)]
    assert {pid for pid, _, _ in told} == {served.pid}
    assert [reason for _, _, reason in told if reason] == [
        "asked to stop",
        "the process that ran it died of signal 11 (crash 1)",
    ]


def test_what_fits_into_no_pickle_goes_as_text(served: Served) -> None:
    job = served.ended(served.add(stopping.fail))
    assert (job.state, job.attempt) == ("failed", 1)
    assert "stopping.Unpicklable: 1 and 2" in job.error
    job = served.ended(served.add(stopping.unstorable))
    assert (job.state, job.result) == ("succeeded", None)


def test_cancelled_from_another_process_it_ends(served: Served) -> None:
    path = served.path()
    id = served.add(stopping.sleep, path, max_attempts=5)
    pids = served.said(path)
    assert served.scheduler.cancel_job(id)
    job = served.ended(id)
    assert (job.state, job.error) == ("cancelled", "asked to stop")
    wait_for("the end of the process", gone(*pids))


def test_signals_to_all_processes_leave_running_jobs_to_finish(served: Served) -> None:
    path = served.path()
    id = served.add(stopping.until_asked, path)
    [pid] = served.said(path)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    served.made.send(served.daemon, signal.SIGTERM)
    wait_for("the drain", lambda: "daemon stopping" in served.log())
    assert served.scheduler.cancel_job(id)
    assert served.made.processes[served.daemon].wait(30) == 0
    assert served.scheduler.get_job(id).result == "stopped by itself"
    wait_for("the end of the process", gone(pid))
    served.start()


def test_what_does_not_end_in_time_is_ended_and_given_back(served: Served) -> None:
    path = served.path()
    id = served.add(stopping.compute, path)
    [pid] = served.said(path)
    for _ in range(2):
        served.made.send(served.daemon, signal.SIGTERM)
        wait_for("the drain", lambda: "daemon stopping" in served.log())
    assert served.made.processes[served.daemon].wait(30) == 0
    assert not lives(pid)
    with served.scheduler.store.read() as connection:
        job = served.scheduler.store.jobs.get(connection, id)
    assert (job.state, job.attempt, job.crashes) == ("scheduled", 0, 0)
    assert served.word(id) == "CSr"
    assert served.scheduler.cancel_job(id)
    served.start()


def test_a_daemon_that_is_killed_leaves_no_process(served: Served) -> None:
    paths = [served.path() for _ in range(2)]
    for func, path in zip((stopping.compute, stopping.until_asked), paths, strict=True):
        served.add(func, path)
    pids = [served.said(path)[0] for path in paths]
    served.made.stop(served.daemon, signal.SIGKILL)
    wait_for("the end of the processes", gone(*pids), 10)


def test_a_combined_web_process_starts_them_from_its_own_ini(tmp_path: Path) -> None:
    settings = {"scheduler__combined": "true", "scheduler__executor": "process"}
    settings["scheduler__config_uri"] = str(tmp_path / "application.ini")
    with deployed(tmp_path, APP, "sqlite", "embedded", **settings) as made:
        application.metadata.create_all(made.engine)
        web = made.start("pserve")
        wait_for("the web server", made.answers)
        id = urlopen(f"{made.url}/ask?number=1").read().decode()
        wait_for("the job", lambda: made.ask("SELECT number, job FROM ran") == [(1, id)])
        listings = Path(f"/proc/{made.processes[web].pid}/task").glob("*/children")
        children = [int(pid) for listing in listings for pid in listing.read_text().split()]
        assert children
        made.stop(web, signal.SIGINT)
        wait_for("the end of its processes", gone(*children), 20)
