"""docs/features.rst is what the names of the feature tests make it, and every row is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.feature_table import ELSEWHERE, PAGE, ROOT, WAITING, make_page, rows, shown_by_row


def test_the_table_is_up_to_date() -> None:
    assert PAGE.read_text() == make_page(), "docs/features.rst is out of date: make features"


def test_rows_that_wait_wait_and_files_elsewhere_are_there() -> None:
    found = shown_by_row()
    assert [row for row in WAITING if found[row]] == []
    assert [
        path for paths in ELSEWHERE.values() for path in paths if not (ROOT / path).exists()
    ] == []


def test_a_row_without_a_test_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "test_a_one.py").write_text('def test_a1_works() -> None:\n    """It does."""\n')
    found = shown_by_row(tmp_path)
    assert found["A1"] == ["``test_a1_works``: It does."]
    without = [row for row in rows() if not found[row]]
    assert make_page(tmp_path).count("No test of its own yet.") == len(set(without) - set(WAITING))


@pytest.mark.parametrize("name", ["test_a99_works", "test_it_works"])
def test_a_test_of_no_row_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_a_one.py").write_text(f"def {name}() -> None:\n    pass\n")
    with pytest.raises(SystemExit, match=name):
        shown_by_row(tmp_path)
