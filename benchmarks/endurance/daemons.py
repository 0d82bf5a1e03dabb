"""Daemons beside each other, and bare SQL beside them."""

from __future__ import annotations

from ..stand import Stand
from . import raw, work
from .results import Options, Result

NUMBERS = (1, 2, 4, 8)

SHARE = 0.5
"""Of what bare SQL does that the daemons are to reach, with a request and a call for each job."""


def daemons(options: Options) -> Result:
    """With 1 to 8 daemons, what they drain is at least half of what bare SQL does."""
    jobs = options.jobs or 50_000
    numbers = [options.daemons] if options.daemons else NUMBERS
    settings = {"jobs": jobs, "rounds": options.rounds, "bare SQL's batch": raw.BATCH}
    result = Result(measure="daemons", place=work.place(options.store), settings=settings)
    with work.stand_for(options.store) as made:
        for _ in range(options.rounds):
            for number in numbers:
                result.add({_name("daemons", number): with_daemons(made, jobs, number)})
                if options.store == "postgresql":
                    result.add({_name("bare SQL", number): with_raw_sql(made, jobs, number)})
    if options.store == "postgresql":
        for number in numbers:
            share = result.ratio(_name("daemons", number), _name("bare SQL", number))
            result.at_least(f"daemons to bare SQL, {number} of each,", SHARE, share)
    return result


def _name(who: str, number: int) -> str:
    return f"{who}, {number}, jobs a second"


def with_daemons(made: Stand, jobs: int, number: int) -> float:
    made.empty()
    made.start_daemons(number)
    rate, _ = work.drain(made, jobs)
    made.stop_daemons()
    return rate


def with_raw_sql(made: Stand, jobs: int, number: int) -> float:
    made.empty()
    ids = work.add(made, jobs)
    raw.run(made, number)
    return jobs / work.verified(made, ids).seconds
