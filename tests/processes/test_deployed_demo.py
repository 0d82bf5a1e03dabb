"""The demo, deployed as separate processes: a form posted leads to the fee, exactly once."""

from __future__ import annotations

import http.cookiejar
import re
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from .deployment import Deployment, deployed, wait_for

PLACES = [
    ("sqlite", "embedded"),
    ("postgresql", "amqp"),
    ("postgresql", "redis"),
    ("mariadb", "redis"),
]

DEMO = {
    "demo__secret": "secret",
    "demo__late_fee_after": "1s",
    "demo__inventory_every": "3600",
    "demo__seconds_per_ski": "0",
}


def submit(deployment: Deployment, path: str, **fields: str) -> None:
    """Fill in and post a form of the demo, as a browser would."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(cookies)
    page = browser.open(f"{deployment.url}/", timeout=20).read().decode()
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token
    form = urllib.parse.urlencode({**fields, "csrf_token": token[1]})
    answer = browser.open(f"{deployment.url}{path}", form.encode(), timeout=20)
    assert answer.status == 200


@pytest.mark.parametrize(("store", "broker"), PLACES)
def test_renting_a_ski_leads_to_one_late_fee(tmp_path: Path, store: str, broker: str) -> None:
    with deployed(tmp_path, "demo:main", store, broker, **DEMO) as demo:
        assert demo.run("pscheduler", "--migrate") == 0
        demo.start("pserve", name="web")
        for name in ("daemon1", "daemon2"):
            demo.start("pscheduler", name=name)
        wait_for("the web server", demo.answers)
        submit(demo, "/skis/1/rent", customer="1")
        fees = "SELECT count(*) FROM demo_charge"
        wait_for("the fee", lambda: demo.ask(fees) == [(1,)])
        state = "SELECT state FROM durable_job WHERE name = 'late-fee'"
        wait_for("the end of the job", lambda: demo.ask(state) == [("succeeded",)])
        assert demo.stop("daemon1") == 0
        assert demo.stop("daemon2") == 0
        assert demo.ask(fees) == [(1,)]
        assert not re.search("Traceback", demo.log("daemon1") + demo.log("daemon2"))
        assert demo.ask("SELECT count(*) FROM durable_daemon") == [(0,)]
