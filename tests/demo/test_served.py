"""development.ini under a real pserve."""

from __future__ import annotations

import contextlib
import http.cookiejar
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Generous: the machine may be busy. Nothing waits that long when it works.
DEADLINE = 40


class Server:
    """A pserve on an ini of its own, and a browser that can fill in forms."""

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        text = (ROOT / "development.ini").read_text().replace("localhost:6543", f"127.0.0.1:{port}")
        for key, value in settings.items():
            text, changed = re.subn(rf"(?m)^demo\.{key} = .*$", f"demo.{key} = {value}", text)
            assert changed, f"development.ini has no demo.{key}"
        self.ini = folder / "development.ini"
        self.ini.write_text(text)
        self.data = folder / "demo.sqlite"
        self.log = folder / "log.txt"
        self.url = f"http://127.0.0.1:{port}"
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", "from pyramid.scripts.pserve import main; main()"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.ini)], cwd=ROOT, stderr=log)

    def stop(self, number: int = signal.SIGINT) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(DEADLINE)
            finally:
                self.process.kill()

    def get(self, path: str) -> str:
        return self.opener.open(self.url + path, timeout=10).read().decode()

    def post(self, path: str, **fields: str) -> str:
        token = re.search(r'name="csrf_token" value="([^"]+)"', self.get("/"))
        assert token
        data = urllib.parse.urlencode(fields | {"csrf_token": token[1]}).encode()
        return self.opener.open(self.url + path, data, timeout=10).read().decode()

    def ask(self, query: str) -> list[tuple]:
        with contextlib.closing(sqlite3.connect(self.data, timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def wait(self, what: str, condition) -> object:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, sqlite3.Error):
                if found := condition():
                    return found
            assert self.process is None or self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        pytest.fail(f"Waited {DEADLINE} s for {what}.\n{self.log.read_text()}")


def test_a_late_fee_and_the_inventory_are_done_by_the_web_process(tmp_path):
    server = Server(tmp_path, late_fee_after="1s", inventory_every="1")
    server.start()
    try:
        server.wait("the first page", lambda: "The jetty" in server.get("/"))
        server.post("/skis/1/rent", customer="1")
        server.wait("the fee", lambda: server.ask("select id from demo_charge"))
        page = server.wait("the list", lambda: (p := server.get("/jobs")).count("succeeded") and p)
        assert "late-fee" in page
        server.wait("the inventory", lambda: "inventory" in server.get("/jobs?state=succeeded"))
        assert server.ask("select amount from demo_charge") == [(600,)]
    finally:
        server.stop()


def test_what_is_due_after_a_restart_runs_without_any_request(tmp_path):
    server = Server(tmp_path, late_fee_after="6s", inventory_every="3600")
    server.start()
    try:
        server.wait("the first page", lambda: "The jetty" in server.get("/"))
        server.post("/skis/1/rent", customer="1")
        server.stop()
        assert server.ask("select id from demo_charge") == []
        server.start()
        server.wait("the fee", lambda: server.ask("select id from demo_charge"))
        assert len(server.ask("select id from demo_charge")) == 1
    finally:
        server.stop()
