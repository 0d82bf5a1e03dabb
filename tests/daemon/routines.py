"""Routines whose behaviors are tested from the call to the end; what ran is in ``ran``."""

from __future__ import annotations

from typing import Any

from pyramid_durable import TriggerBehavior, current_job, routine

ran: list[tuple[str, Any]] = []


class Noted:
    """Notes that it ran, and fails where it is told to."""

    def __init__(self, rental: Any, fails: bool = False) -> None:
        self.rental = rental
        self.fails = fails

    def run(self) -> None:
        ran.append((type(self).__name__, self.rental))
        if self.fails:
            raise ValueError("no")


@routine(trigger_name="late-fee", behavior=TriggerBehavior.SCHEDULE_ONCE)
class LateFee(Noted):
    pass


@routine(trigger_name="welcome", behavior=TriggerBehavior.RUN_ONCE)
class Welcome(Noted):
    pass


@routine(trigger_name="bill", behavior=TriggerBehavior.RUN_AND_SCHEDULE_ONCE)
class Bill(Noted):
    pass


@routine(trigger_name="index", behavior=TriggerBehavior.LAST_ONLY)
class Index(Noted):
    pass


@routine(trigger_name="hint", task_group="warnings")
class Hint(Noted):
    """No behavior of its own, but others of its group look for it."""


@routine(trigger_name="remind", task_group="warnings", behavior=TriggerBehavior.SCHEDULE_ONCE)
class Remind(Noted):
    pass


@routine(trigger_name="warn", task_group="warnings", behavior=TriggerBehavior.LAST_ONLY)
class Warn(Noted):
    pass


@routine(trigger_name="greet", task_group="greetings", behavior=TriggerBehavior.RUN_ONCE)
class Greet(Noted):
    pass


@routine(trigger_name="hail", task_group="greetings", behavior=TriggerBehavior.RUN_ONCE)
class Hail(Noted):
    pass


@routine(trigger_name="again", behavior=TriggerBehavior.LAST_ONLY)
class Again(Noted):
    def run(self) -> None:
        super().run()
        current_job().reschedule("1h", args=[self.rental - 1])
