"""Jobs of applications that may run only what is registered."""

from __future__ import annotations

from pyramid_durable import interval, job, routine


@job
def remind(*args: object, **kwargs: object) -> None:
    """A job."""


@job(queue="mail")
def send(*args: object) -> None:
    """A job of another queue."""


@routine(trigger_name="fee")
class Fee:
    def run(self) -> None:
        """A routine."""


class DerivedFee(Fee):
    """No routine of its own."""


@interval(minutes=5, lazy=True)
def begun() -> None:
    """Its schedule begins with a call."""


class Desk:
    @staticmethod
    @job
    def open(door: int) -> None:
        """A static method."""


def renamed() -> None:
    """Not decorated; it has an alias."""


def declared() -> None:
    """Not decorated; a directive names it."""
