"""What the endurance measures judge by: a book of runs, a growth, a goal, the page of figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.endurance import ledger, page
from benchmarks.endurance.results import Result, write_results
from benchmarks.endurance.watching import growth


def test_a_book_that_misses_a_job_or_has_one_twice_is_refused(tmp_path: Path) -> None:
    book = tmp_path / "book"
    book.write_text("a 1.0 0.5\nb 2.0 0.25\n")
    assert [entry.late for entry in ledger.check(book, ["a", "b"])] == [0.5, 0.25]
    with pytest.raises(AssertionError, match="1 jobs did not run, such as c"):
        ledger.check(book, ["a", "b", "c"])
    with pytest.raises(AssertionError):
        ledger.check(book, ["a"])
    book.write_text("a 1.0 0.5\nb 2.0 0.25\nb 3.0 0.25\n")
    with pytest.raises(AssertionError, match="1 jobs ran more than once, such as b"):
        ledger.check(book, ["a", "b"])


def test_growth_is_the_line_of_least_squares_and_the_medians_of_the_ends() -> None:
    found = growth([0, 10, 20, 30, 40], [100, 101, 102, 103, 104])
    assert (found.slope, found.start, found.end) == pytest.approx((0.1, 100, 104))
    assert (found.rise, found.share) == pytest.approx((4, 0.04))


def test_figures_and_goals_go_through_json_into_the_page(tmp_path: Path) -> None:
    result = Result(measure="future", place="here", settings={"rows": 1_000_000})
    for value in (900.0, 1000.0, 1200.0):
        result.add({"drain, full": value, "drain, empty": 1000.0})
    result.at_least("drain, full to empty,", 0.9, result.ratio("drain, full", "drain, empty"))
    result.at_most("idle CPU,", 1, 1.5, " %")
    assert [goal.met for goal in result.goals] == [True, False]
    file = tmp_path / "out.json"
    write_results(file, [result])
    text = page.tables([file])
    assert "    * - drain, full\n      - 1,000 (900 – 1,200)\n" in text
    assert "    * - idle CPU, at most 1 %\n      - 1.5 %, **missed**\n" in text
