"""The short version of the chaos: some seconds of faults on each place; the long one is a command."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from .chaos import PLACES, run_chaos

SECONDS = 6.0
"""Of faults, on each place; starting and ending in peace takes as long again."""

FEWEST_JOBS = 15
"""Jobs that have to succeed in that time, on however slow a machine, for the run to say something."""

FEWEST_FAULTS = 3
"""Faults that found a target; most of the first five do."""


@pytest.mark.parametrize(("store", "broker"), PLACES)
def test_no_law_is_broken_under_fire(tmp_path: Path, store: str, broker: str) -> None:
    seed = os.environ.get("DURABLE_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
    report = run_chaos(tmp_path, store, broker, seed=seed, seconds=SECONDS)
    found = "\n".join(report.lines())
    again = f"DURABLE_CHAOS_SEED={seed} repeats the choices"
    assert not report.violations, f"{found}\n{again}"
    assert report.counts["succeeded"] >= FEWEST_JOBS, f"{found}\n{again}"
    assert sum(report.faults.values()) >= FEWEST_FAULTS, f"{found}\n{again}"
