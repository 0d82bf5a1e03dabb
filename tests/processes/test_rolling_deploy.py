"""Two versions of an application side by side, as daemons in processes of their own."""

from __future__ import annotations

from pathlib import Path

from pyramid_durable.store import Store

from .deployment import SCRIPTS, Deployment, deployed, wait_for

APPLICATION = "tests.processes.rolling:application"

SCHEDULES = {
    "1": {"often": "tick", "nightly": "send", "old": "old_report"},
    "2": {"often": "tick", "nightly": "deliver", "new": "new_report"},
}


class Rollout:
    """What the test says and asks; ``asked`` are the numbers of the jobs."""

    def __init__(self, app: Deployment) -> None:
        self.app = app
        self.asked: list[int] = []

    def start(self, version: str, name: str) -> None:
        self.app.start("pscheduler", f"version={version}", name=name)
        wait_for(f"daemon {name}", lambda: "daemon started" in self.app.log(name))

    def ask(self, version: str, *funcs: str) -> str:
        """Ask for a job of each function, in a process that does so at its time."""
        numbers = range(len(self.asked) + 1, len(self.asked) + 1 + len(funcs))
        self.asked += numbers
        calls = [f"{func}={number}" for func, number in zip(funcs, numbers, strict=True)]
        return self.app.start("rolling", f"version={version}", *calls)

    def all_ran(self) -> bool:
        ran = [number for (number,) in self.app.ask("SELECT number FROM ran ORDER BY number")]
        return ran == self.asked

    def schedules(self) -> dict[str, str]:
        found = self.app.ask("SELECT id, func FROM durable_schedule")
        return {id: func.removeprefix("shop:") for id, func in found}

    def ticks(self) -> int:
        ended = "schedule_id = 'often' AND state = 'succeeded'"
        return int(self.app.ask(f"SELECT count(*) FROM durable_job WHERE {ended}")[0][0])

    def wait_for_ticks(self) -> None:
        before = self.ticks()
        wait_for("more ticks", lambda: self.ticks() > before)


def test_a_rolling_deploy_and_a_rollback(tmp_path: Path) -> None:
    SCRIPTS["rolling"] = "tests.processes.rolling"
    settings = {
        "scheduler__poll_interval": "200ms",
        "scheduler__heartbeat": "200ms",
        "scheduler__lease": "3s",
    }
    with deployed(tmp_path, APPLICATION, "postgresql", "redis", **settings) as app:
        from .rolling import metadata

        metadata.create_all(app.engine)
        Store(app.engine.url.render_as_string(hide_password=False)).migrate()
        both = Rollout(app)

        both.start("1", "old")
        assert both.schedules() == SCHEDULES["1"]

        # The new version stands beside the old one, and each leaves to the other what it does not
        # know.
        both.start("2", "new")
        assert both.schedules() == SCHEDULES["2"]
        asking = [
            both.ask("2", "deliver", "new_report", "new_report"),
            both.ask("1", "send", "old_report", "old_report"),
        ]
        wait_for("the jobs of both versions", both.all_ran)
        assert [app.processes[name].wait(60) for name in asking] == [0, 0]
        both.wait_for_ticks()

        # A daemon of the old version is restarted in the midst of it.
        assert app.stop("old") == 0
        both.start("1", "old again")
        assert "a daemon of a newer deployment is at work" in app.log("old again")
        assert both.schedules() == SCHEDULES["2"]

        # The new version is taken back.
        assert app.stop("new") == 0
        wait_for("the rollback", lambda: both.schedules() == SCHEDULES["1"])
        both.wait_for_ticks()
        assert app.stop("old again") == 0

        ends = app.ask("SELECT DISTINCT state FROM durable_job WHERE schedule_id IS NULL")
        assert ends == [("succeeded",)]
        broken = "SELECT func FROM durable_job WHERE state IN ('broken', 'failed')"
        assert app.ask(broken) == []
