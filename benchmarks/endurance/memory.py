"""A daemon's memory over half a million jobs."""

from __future__ import annotations

from pathlib import Path

from . import ledger, watching, work
from .results import Options, Result

EVERY = 10_000
WARM = 50_000
"""Jobs until everything has been used once: from here on it has to be flat."""


def memory(options: Options) -> Result:
    """Over half a million jobs, a daemon's memory stays as it is after the first 50,000."""
    jobs = options.jobs or 500_000
    warm = min(WARM, jobs // 5)
    every = min(EVERY, warm)
    settings = {"jobs": jobs, "first ones": warm, "sampled every": every}
    result = Result(measure="memory", place=work.place(options.store), settings=settings)
    ran: list[float] = []
    sizes: list[float] = []
    ids: list[str] = []
    with work.stand_for(options.store) as made:
        made.start_daemons(1)
        (process,) = made.daemons
        book = made.ini.with_name("ledger")
        while len(ids) < jobs:
            ids += work.add(made, every, func=ledger.noted, args=[str(book)])
            work.wait_until_idle(made)
            ran.append(len(ids))
            sizes.append(watching.memory(process.pid))
        files = watching.open_files(process.pid)
        made.stop_daemons()
        work.verified(made, ids)
        ledger.check(Path(book), ids)
    first = next(index for index, number in enumerate(ran) if number >= warm)
    found = watching.growth(ran[first:], sizes[first:])
    result.add(
        {
            "memory after the first jobs, MB": found.start,
            "memory at the end, MB": found.end,
            "growth, KB for 1,000 jobs": found.slope * 1e6,
            "open files at the end": float(files),
        }
    )
    result.at_most("growth of the memory", 5, found.share * 100, " %")
    return result
