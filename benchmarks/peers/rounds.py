"""The rounds: in each, every work; at each work, all contenders one after the other, order rotated."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from .bench import Failure, bench
from .contender import Contender
from .works import Figures, Work, trial

TRIAL = 200
"""Jobs of the trial that tells how many a contender can be given."""
TRIAL_SECONDS = 180.0
PATIENCE = 5
"""A measurement may take so many times ``most_seconds``: the trial is a rough guide."""
BROKEN = (Failure, OSError, DBAPIError)
"""What a contender that does not work brings about."""


@dataclass
class Result:
    """What one contender showed at one work."""

    jobs: int
    rounds: list[Figures] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


Results = dict[str, dict[str, Result]]
"""By the ids of works and contenders."""


@dataclass
class Run:
    """One run of everything."""

    contenders: Sequence[Contender]
    works: Sequence[Work]
    jobs: int
    most_seconds: float
    folder: Path
    results: Results = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    failed_trials: dict[str, str] = field(default_factory=dict)
    _rates: dict[str, float] = field(default_factory=dict)

    def try_out(self) -> None:
        """A small drain of each contender: does it work, and roughly how fast."""
        for contender in self.contenders:
            folder = self.folder / f"{contender.id}-trial"
            try:
                with bench(contender, folder, TRIAL, TRIAL_SECONDS) as made:
                    with made.producer() as producer:
                        packages = list(contender.packages)
                        self.versions[contender.id] = producer.ask("versions", packages=packages)
                    seconds = sum(TRIAL / rate for rate in trial(made, TRIAL).values())
            except BROKEN as error:
                say(f"trial: {contender.id}: {error}\n{read_log(folder)}")
                self.failed_trials[contender.id] = str(error)
            else:
                self._rates[contender.id] = TRIAL / seconds
                say(f"trial: {contender.id}: {TRIAL / seconds:,.0f} jobs a second, with enqueueing")
                shutil.rmtree(folder)

    def round(self, number: int) -> None:
        """Every work once, by all."""
        for work in self.works:
            able = [contender for contender in self.contenders if work.suits(contender)]
            turn = number % len(able) if able else 0
            for contender in [*able[turn:], *able[:turn]]:
                self._measure(work, contender, number)

    def _measure(self, work: Work, contender: Contender, number: int) -> None:
        jobs = work.jobs(self.jobs)
        found = self.results.setdefault(work.id, {}).setdefault(contender.id, Result(jobs))
        if contender.id in self.failed_trials:
            found.failures.append(self.failed_trials[contender.id])
            return
        if work.by_rate:
            found.jobs = affordable(jobs, self._rates[contender.id] * self.most_seconds)
            if found.jobs <= work.more_than(self.jobs):
                reason = f"left out: too slow for more than {work.more_than(self.jobs):,} jobs"
                found.failures.append(f"{reason} in {self.most_seconds:.0f} s")
                return
        folder = self.folder / f"{contender.id}-{work.id}-{number + 1}"
        at = f"round {number + 1}: {work.id}: {contender.id}"
        try:
            with bench(contender, folder, found.jobs, self.most_seconds * PATIENCE) as made:
                figures = work.measure(made, found.jobs)
        except BROKEN as error:
            found.failures.append(str(error))
            say(f"{at}: {error}\n{read_log(folder)}")
        else:
            found.rounds.append(figures)
            shown = ", ".join(f"{figures[name]:,.3g} {unit}" for name, unit in work.figures.items())
            say(f"{at}: {found.jobs:,} jobs: {shown}")
            shutil.rmtree(folder)


def affordable(jobs: int, most: float) -> int:
    """As many jobs as asked for, or the next lower 1, 2 or 5 with zeros that is affordable."""
    if most >= jobs:
        return jobs
    size = 10 ** int(math.log10(max(most, 10)))
    return max(step * size for step in (1, 2, 5) if step * size <= max(most, 10))


def read_log(folder: Path) -> str:
    """The last lines that a contender's processes wrote."""
    path = folder / "log"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(f"    | {line}" for line in lines[-15:])


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
