"""Forked children, with a supervisor's process that does nothing but fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.processes.deployment import is_alive, wait_for

# A process that forks, and waits for what becomes of its children.
BEGINNING = """
import atexit, os, signal, socket, sys, threading, time
from pathlib import Path
from pyramid_durable.forking import Forks

def forks(work):
    return Forks(work, signals=[signal.SIGTERM, signal.SIGINT])

def until(condition):
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "nothing came of it"
        time.sleep(0.01)
    return condition()

def code_of(child):
    until(lambda: child.poll() is not None)
    child.close()
    return child.poll()
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run such a process to its end."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(code), *arguments],
        env=environ,
        capture_output=True,
        input="what only the supervisor may read",
        text=True,
        timeout=40,
        check=False,
    )


def ran(code: str, *arguments: str) -> list[str]:
    """The lines that such a process and its children have written."""
    ended = run(code, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_a_forked_child_hears_what_it_is_told():
    assert ran("""
        def work(lifeline):
            hurry = threading.Event()
            lifeline.watch(lambda: print("stop", lifeline.number, flush=True), hurry.set)
            lifeline.say_started()
            hurry.wait()
            return 5

        child = forks(work).spawn(7)
        until(child.has_started)
        assert child.poll() is None
        child.stop()
        child.hurry()
        print(code_of(child))
        child.stop()  # nobody is there any more, and that is all
    """) == ["stop 7", "5"]


def test_it_has_a_session_of_its_own_and_nothing_to_read():
    assert ran("""
        def work(lifeline):
            assert os.getsid(0) == os.getpid()
            assert sys.stdin.read() == ""
            return 0

        assert code_of(forks(work).spawn(1)) == 0
        print(sys.stdin.read())
    """) == ["what only the supervisor may read"]


def test_it_ends_as_a_process_of_its_own():
    ended = run("""
        def send(number):
            return lambda lifeline: signal.raise_signal(number)

        signal.signal(signal.SIGINT, lambda number, frame: print("the supervisor's"))
        for work in (
            lambda lifeline: sys.exit(),
            lambda lifeline: sys.exit(4),
            lambda lifeline: sys.exit(-1),
            lambda lifeline: sys.exit("no work"),
            lambda lifeline: 1 / 0,
            send(signal.SIGKILL),
            send(signal.SIGINT),
        ):
            print(code_of(forks(work).spawn(1)))
    """)
    assert ended.returncode == 0
    assert ended.stdout.split() == ["0", "4", "255", "1", "1", "-9", "-2"]
    said = ended.stderr.splitlines()
    assert said[:2] == ["no work", "Traceback (most recent call last):"]
    assert said[-1] == "ZeroDivisionError: division by zero"
    # Nothing of the supervisor's is beneath it.
    assert ended.stderr.count("Traceback") == 1
    assert "spawn" not in ended.stderr


def test_what_is_written_is_written_once():
    assert ran("""
        print("before", end=" ")
        def work(lifeline):
            print("child", end=" ")
            return 0

        code_of(forks(work).spawn(1))
        print("after")
    """) == ["before child after"]


def test_each_does_at_its_end_what_it_has_registered_itself():
    said = ran("""
        import logging.handlers, multiprocessing.util, weakref
        from concurrent.futures import ThreadPoolExecutor

        log = logging.getLogger("late")
        out = logging.StreamHandler(sys.stdout)
        log.addHandler(logging.handlers.MemoryHandler(100, target=out))
        atexit.register(print, "the supervisor")
        multiprocessing.util.Finalize(None, print, ["a finalizer of the supervisor"], exitpriority=1)
        weakref.finalize(forks, print, "a weak one of the supervisor")
        log.warning("gathered before")

        def work(lifeline):
            atexit.register(print, "the child")
            multiprocessing.util.Finalize(None, print, ["a finalizer of the child"], exitpriority=1)
            weakref.finalize(forks, print, "a weak one of the child")
            ThreadPoolExecutor().submit(print, "a thread of the child")
            threading.Timer(0.1, print, ["a late thread"]).start()
            log.warning("gathered")
            return 0

        code_of(forks(work).spawn(1))
    """)
    child = ["a thread of the child", "a late thread", "a weak one of the child", "the child"]
    supervisor = ["the supervisor", "a finalizer of the supervisor", "a weak one of the supervisor"]
    assert said == ["gathered before", *child, "a finalizer of the child", "gathered", *supervisor]


def test_processes_of_the_supervisor_outlive_a_child():
    assert ran("""
        import multiprocessing

        helper = multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True)
        helper.start()
        def work(lifeline):
            multiprocessing.get_context("fork").Process(target=print, args=["joined"]).start()
            return 0

        code_of(forks(work).spawn(1))
        print(helper.exitcode)
        helper.kill()
    """) == ["joined", "None"]


def test_a_child_that_has_not_started_is_stopped_by_a_signal():
    assert ran("""
        signal.signal(signal.SIGTERM, lambda number, frame: print("the supervisor's"))
        child = forks(lambda lifeline: time.sleep(60)).spawn(1)
        child.stop()
        print(code_of(child), child.has_started())
    """) == [f"-{signal.SIGTERM.value} False"]


def test_how_it_ended_nobody_learns_where_that_is_ignored():
    assert ran("""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        child = forks(lambda lifeline: 3).spawn(1)
        print(code_of(child))
        child.kill()  # and not whoever has its number now
    """) == ["0"]


def test_children_notice_each_for_itself_that_the_supervisor_is_gone(tmp_path: Path):
    # The second one stays, and would hold the first one's lifeline open if it could.
    ended = run(
        """
        folder = Path(sys.argv[1])
        def work(lifeline):
            stop = threading.Event()
            lifeline.watch(stop.set, stop.set)
            lifeline.say_started()
            stop.wait()
            (folder / str(lifeline.number)).write_text(str(os.getpid()))
            if lifeline.number == 2:
                until((folder / "end").exists)
            return 0

        # As pytest waits for whoever has it open.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        here = forks(work)
        for number in (1, 2):
            until(here.spawn(number).has_started)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        str(tmp_path),
    )
    assert ended.returncode == -signal.SIGKILL
    said = [tmp_path / "1", tmp_path / "2"]
    wait_for("both", lambda: all(path.exists() and path.read_text() for path in said), 20)
    first, second = (int(path.read_text()) for path in said)
    wait_for("the first to end", lambda: not is_alive(first), 20)
    assert is_alive(second)
    (tmp_path / "end").touch()
    wait_for("the second to end", lambda: not is_alive(second), 20)


def test_a_process_with_threads_is_not_forked():
    assert ran("""
        end = threading.Event()
        thread = threading.Thread(target=end.wait, name="metrics")
        thread.start()
        try:
            forks(lambda lifeline: 0).spawn(1)
        except Exception as error:
            print(type(error).__name__, "while other threads run: metrics; expected" in str(error))
        end.set()
        thread.join()
        print(code_of(forks(lambda lifeline: 0).spawn(1)))
    """) == ["DurableError True", "0"]


def test_all_threads_are_named():
    (said,) = ran("""
        from pyramid_durable.exceptions import DurableError
        from pyramid_durable.forking import check_threads

        end = threading.Event()
        for name in ("two", "one"):
            threading.Thread(target=end.wait, name=name).start()
        try:
            check_threads()
        except DurableError as error:
            print(error)
        end.set()
    """)
    assert "while other threads run: one, two; expected" in said
