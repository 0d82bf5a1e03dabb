"""Inboxes without a server: what they keep, how they wait, what they clear away."""

from __future__ import annotations

import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from pyramid_durable.broker.bells import Bells, ring
from pyramid_durable.broker.inboxes import (
    DEAD_AFTER,
    POLLING_INTERVAL,
    RUNG_INTERVAL,
    FolderInboxes,
    MemoryInboxes,
)


def test_memory_wakes_for_what_came_since_one_looked() -> None:
    inboxes = MemoryInboxes()
    inboxes.open("x.one")
    mark = inboxes.mark()
    inboxes.put("x", {"n": 1}, None)
    started = time.monotonic()
    inboxes.wait(mark, 5)
    assert time.monotonic() - started < 1, "it slept over a message"
    started = time.monotonic()
    inboxes.wait(inboxes.mark(), 0.05)
    assert time.monotonic() - started >= 0.05, "it did not sleep at all"


def test_a_folder_is_looked_into_while_waiting(tmp_path: Path) -> None:
    inboxes = FolderInboxes(tmp_path, 0.01)
    inboxes.open("x.one")
    started = time.monotonic()
    inboxes.wait(inboxes.mark(), 0.05)
    assert 0.05 <= time.monotonic() - started < 1
    FolderInboxes(tmp_path, 0.01).put("x", {"n": 1}, None)
    started = time.monotonic()
    inboxes.wait(inboxes.mark(), 5)
    assert time.monotonic() - started < 1


def test_an_announcement_after_the_last_was_taken_is_kept(tmp_path: Path) -> None:
    for inboxes in (MemoryInboxes(), FolderInboxes(tmp_path, 0.01)):
        inboxes.open("x.one")
        for expected in (1, 3):
            inboxes.put("x", {"n": expected}, "announced")
            inboxes.put("x", {"n": expected + 1}, "announced")
            assert inboxes.size("x.one") == 1
            assert inboxes.get("x.one") == {"n": expected}
            assert inboxes.get("x.one") is None


def test_a_reader_gives_its_sign_of_life_again(tmp_path: Path) -> None:
    inboxes = FolderInboxes(tmp_path, 0.01)
    inboxes.open("x.one")
    sign = tmp_path / "x" / "one.alive"
    os.utime(sign, (1, 1))
    inboxes.get("x.one")
    assert sign.stat().st_mtime == 1, "a sign at every look wears out disks"
    inboxes._signed["x.one"] -= DEAD_AFTER
    inboxes.get("x.one")
    assert time.time() - sign.stat().st_mtime < DEAD_AFTER


def test_drafts_of_publishers_that_died_go(tmp_path: Path) -> None:
    inboxes = FolderInboxes(tmp_path, 0.01)
    inboxes.open("x.one")
    young, old = (tmp_path / "x" / "one" / name for name in (".young", ".old"))
    for draft in (young, old):
        draft.write_text('{"half')
    os.utime(old, (1, 1))
    assert inboxes.get("x.one") is None
    assert young.exists()
    assert not old.exists()


def test_a_reader_is_rung_for_and_need_not_look(tmp_path: Path) -> None:
    reader, writer = FolderInboxes(tmp_path, 60), FolderInboxes(tmp_path, 60)
    reader.open("x.one")
    reader.open("x.two")
    assert not reader._bells.wait(0)
    writer.put("x", {"n": 1}, "announced")
    assert reader._bells.wait(30), "as often as there is something new"
    assert not reader._bells.wait(0), "and not again"
    assert reader.get("x.one") == reader.get("x.two") == {"n": 1}
    reader.remove("x.one")
    reader.remove("x.two")
    assert not list((tmp_path / "x").iterdir())


def test_what_nobody_rang_for_is_found_at_the_next_look(tmp_path: Path) -> None:
    inboxes = FolderInboxes(tmp_path, 0.01)
    inboxes.open("x.one")
    (tmp_path / "x" / "one.bell").unlink()
    inboxes.put("x", {"n": 1}, "announced")
    assert not inboxes._bells.wait(0)
    inboxes.wait(inboxes.mark(), 30)
    assert inboxes.get("x.one") == {"n": 1}


@pytest.mark.parametrize("given", [None, 0.5])
def test_a_reader_with_bells_looks_seldom_unless_told_otherwise(
    tmp_path: Path, given: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause() -> float:
        inboxes = FolderInboxes(tmp_path, given)
        inboxes.open("x.one")
        inboxes.open("x.two")
        return inboxes._pause

    assert pause() == (given or RUNG_INTERVAL)
    (tmp_path / "x" / "two.bell").unlink()
    monkeypatch.setattr(os, "mkfifo", Mock(side_effect=OSError))
    assert pause() == (given or POLLING_INTERVAL)


def test_the_bells_of_the_dead_and_of_the_deaf_keep_nobody_waiting(tmp_path: Path) -> None:
    inbox = str(tmp_path / "one")
    ring(inbox)
    bells = Bells()
    bells.hang(inbox)
    for _ in range(70_000):
        ring(inbox)
    assert bells.wait(0)
    bells.take_down(inbox)
    ring(inbox)


def test_a_reader_that_is_let_go_of_keeps_no_files_open(tmp_path: Path) -> None:
    bells = Bells()
    bells.hang(str(tmp_path / "one"))
    ends = bells._ends[str(tmp_path / "one")]
    del bells
    for end in ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)
