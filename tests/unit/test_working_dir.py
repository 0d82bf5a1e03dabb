"""A current directory for one job: of the process in its main thread, else of one thread alone."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyramid_durable import working_dir as module
from pyramid_durable.exceptions import BrokenJob
from pyramid_durable.working_dir import working_dir

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have no directory of theirs")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def thread() -> Iterator[Callable[[Callable[[], object]], object]]:
    """Call something in one thread, always the same."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda call: pool.submit(call).result(20)


def be_in(folder: Path, then: Callable[[], object] = Path.cwd) -> object:
    with working_dir(str(folder)):
        return then()


def test_the_main_thread_is_back_where_it_was(tmp_path: Path, home: Path) -> None:
    assert be_in(tmp_path) == tmp_path
    assert Path.cwd() == home
    with pytest.raises(LookupError):
        be_in(tmp_path, {}.popitem)
    assert Path.cwd() == home


@on_linux
def test_the_main_thread_still_shares_its_directory(tmp_path: Path, home: Path) -> None:
    be_in(tmp_path)
    os.chdir(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Path.cwd).result() == tmp_path


@on_linux
def test_no_other_thread_notices(
    tmp_path: Path, home: Path, thread: Callable[[Callable[[], object]], object]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    both = threading.Barrier(2)

    def meet(folder: Path) -> object:
        both.wait(20)
        seen = Path.cwd(), Path("here.txt").write_text(folder.name)
        both.wait(20)
        return seen[0]

    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(lambda folder: be_in(folder, lambda: meet(folder)), [one, two]))
        assert seen == [one, two]
        assert set(pool.map(lambda _: Path.cwd(), range(4))) == {home}
    assert (one / "here.txt").read_text() == "one"
    assert thread(lambda: be_in(one)) == one
    assert thread(Path.cwd) == home == Path.cwd()


@on_linux
def test_a_thread_is_set_apart_once(
    tmp_path: Path,
    thread: Callable[[Callable[[], object]], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = []
    unshare = module._unshare
    monkeypatch.setattr(module, "_unshare", lambda: times.append(unshare()))
    for _ in range(3):
        assert thread(lambda: be_in(tmp_path)) == tmp_path
    assert len(times) == 1


@pytest.mark.parametrize("name", ["missing", "file.txt"])
def test_what_cannot_be_entered_is_named(tmp_path: Path, home: Path, name: str) -> None:
    (tmp_path / "file.txt").touch()
    with pytest.raises(BrokenJob, match=f"'{tmp_path / name}' cannot be entered") as caught:
        be_in(tmp_path / name)
    assert "expected a folder" in str(caught.value)
    assert Path.cwd() == home


def refuse() -> None:
    raise PermissionError(1, "Operation not permitted")


def no_such_call() -> None:
    ctypes.CDLL(None).no_such_system_call()


@pytest.mark.parametrize(
    ("unshare", "why"),
    [(refuse, r"unshare\(CLONE_FS\): Operation not permitted"), (no_such_call, "has no unshare")],
)
def test_where_threads_cannot_have_one_of_their_own(
    tmp_path: Path,
    home: Path,
    thread: Callable[[Callable[[], object]], object],
    monkeypatch: pytest.MonkeyPatch,
    unshare: Callable[[], None],
    why: str,
) -> None:
    monkeypatch.setattr(module, "_unshare", unshare)
    with pytest.raises(BrokenJob, match=f"needs executor='process' on this system .*{why}"):
        thread(lambda: be_in(tmp_path))
    assert thread(Path.cwd) == home
    assert be_in(tmp_path) == tmp_path
