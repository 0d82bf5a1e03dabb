"""development.ini under a real pserve."""

from __future__ import annotations

import contextlib
import http.cookiejar
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.deployment import DEADLINE, ROOT, free_port, wait_for

NOT_YET = (urllib.error.URLError, ConnectionError, sqlite3.Error)


class Server:
    """A pserve on a copy of development.ini, and a browser that can fill in forms."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ini = folder / "development.ini"
        self.log = folder / "log.txt"
        self.process: subprocess.Popen[bytes] | None = None
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self.ini.write_text(
            (ROOT / "development.ini").read_text().replace("localhost:6543", address)
        )
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.browser = urllib.request.build_opener(cookies)

    def set(self, **settings: str) -> None:
        """Change the demo's settings in the ini."""
        text = self.ini.read_text()
        for key, value in settings.items():
            text, changed = re.subn(rf"(?m)^demo\.{key} = .*$", f"demo.{key} = {value}", text)
            assert changed, f"development.ini has no demo.{key}"
        self.ini.write_text(text)

    def start(self) -> None:
        command = [sys.executable, "-c", "from pyramid.scripts.pserve import main; main()"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.ini)], cwd=ROOT, stderr=log)

    def stop(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)

    def get(self, path: str) -> str:
        return self.browser.open(self.url + path, timeout=10).read().decode()

    def post(self, path: str, **fields: str) -> str:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/"))
        assert token
        form = urllib.parse.urlencode(fields | {"csrf_token": token[1]})
        return self.browser.open(self.url + path, form.encode(), timeout=10).read().decode()

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / "demo.sqlite", timeout=10)) as data:
            return data.execute(query).fetchall()

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait until this holds; what cannot be asked yet does not."""

        def holds() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(*NOT_YET):
                return condition()
            return None

        return wait_for(what, holds)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        server.process.kill()
        server.process.wait(DEADLINE)


def test_the_web_process_charges_the_fee_and_counts_the_skis(server):
    server.set(late_fee_after="1s", inventory_every="1")
    server.start()
    server.wait("the first page", lambda: "The jetty" in server.get("/"))
    server.post("/skis/1/rent", customer="1")
    server.wait("the fee", lambda: server.ask("SELECT id FROM demo_charge"))
    server.wait("its state", lambda: "late-fee" in server.get("/jobs?state=succeeded"))
    server.wait("progress", lambda: "<progress" in server.get("/jobs"))
    server.wait("the inventory", lambda: "inventory" in server.get("/jobs?state=succeeded"))
    assert server.ask("SELECT amount FROM demo_charge") == [(600,)]


def test_what_is_due_after_a_restart_runs_without_any_request(server):
    server.set(late_fee_after="5s", inventory_every="3600")
    server.start()
    server.wait("the first page", lambda: "The jetty" in server.get("/"))
    server.post("/skis/1/rent", customer="1")
    server.stop(signal.SIGKILL)
    assert server.ask("SELECT id FROM demo_charge") == []
    server.start()
    server.wait("the fee", lambda: server.ask("SELECT id FROM demo_charge"))
    assert server.ask("SELECT amount FROM demo_charge") == [(600,)]


def test_ctrl_c_lets_a_running_job_finish(server):
    server.set(inventory_every="1")
    # A shell that starts the tests in the background would have its children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        server.start()
    finally:
        signal.signal(signal.SIGINT, before)
    running = "SELECT id FROM durable_job WHERE state = 'running'"
    ((job_id,), *_) = server.wait("the inventory", lambda: server.ask(running))
    assert server.stop(signal.SIGINT) == 0
    assert server.ask(f"SELECT state, crashes FROM durable_job WHERE id = '{job_id}'") == [
        ("succeeded", 0)
    ]
    assert server.ask("SELECT * FROM durable_daemon") == []
