"""What a child hears of its supervisor, with real processes that do nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pyramid_durable.lifeline import SUPERVISED, ChildProcess, Lifeline
from tests.processes.deployment import wait_for

# A child as pscheduler is one, and nothing else: it says what it is told until it is to stop.
CHILD = """
import os, sys, threading
from pyramid_durable.lifeline import SUPERVISED, Lifeline
lifeline = Lifeline.adopt()
heard = threading.Event()
def hear(word):
    with open(sys.argv[1], "a") as lines:
        lines.write(f"{word} {lifeline.number} {SUPERVISED in os.environ}\\n")
    if word == "hurry" or "patient" not in sys.argv:
        heard.set()
lifeline.say_started()
lifeline.watch(lambda: hear("stop"), lambda: hear("hurry"))
heard.wait()
"""


def test_a_child_process_hears_what_it_is_told(tmp_path):
    heard = tmp_path / "heard"
    child = ChildProcess([sys.executable, "-c", CHILD, str(heard), "patient"], 7)
    wait_for("the start", child.has_started, 20)
    assert child.poll() is None
    child.stop()
    wait_for("the stop", lambda: heard.exists() and "stop" in heard.read_text(), 20)
    assert child.poll() is None
    child.hurry()
    wait_for("the end", lambda: child.poll() is not None, 20)
    assert child.poll() == 0
    assert heard.read_text() == "stop 7 False\nhurry 7 False\n"
    child.stop()  # nobody is there any more, and that is all
    child.close()


def test_a_child_that_has_not_started_is_stopped_by_a_signal():
    child = ChildProcess([sys.executable, "-c", "import time; time.sleep(60)"], 1)
    child.stop()
    wait_for("the end", lambda: child.poll() is not None, 20)
    assert child.poll() == -signal.SIGTERM
    assert not child.has_started()
    child.close()


def test_a_child_stops_when_its_supervisor_is_gone(tmp_path):
    heard = tmp_path / "heard"
    orphan = (
        "import os, sys, time\n"
        "from pyramid_durable.lifeline import ChildProcess\n"
        "child = ChildProcess([sys.executable, '-c', *sys.argv[1:]], 3)\n"
        "while not child.has_started(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", orphan, CHILD, str(heard)], timeout=20, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    wait_for("the stop", lambda: heard.exists() and heard.read_text() == "stop 3 False\n", 20)


def test_who_is_nobodys_child_has_no_lifeline(monkeypatch):
    monkeypatch.delenv(SUPERVISED, raising=False)
    assert Lifeline.adopt() is None
    reading, writing = os.pipe()
    monkeypatch.setenv(SUPERVISED, f"{reading}:1")
    with pytest.raises(OSError, match="socket"):
        Lifeline.adopt()
    os.close(reading)
    os.close(writing)
