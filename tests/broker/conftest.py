"""One broker of each kind, for tests that hold on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.servers import Server

KINDS = ("memory", "filesystem", "amqp", "redis")


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    yield from _serve(request.param, tmp_path)


@pytest.fixture(params=KINDS[1:])
def shared_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Those that several processes share."""
    yield from _serve(request.param, tmp_path)


@pytest.fixture(params=KINDS[2:])
def keeping_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Those that keep commands, behind a socket."""
    yield from _serve(request.param, tmp_path)


@pytest.fixture
def folder_server(tmp_path: Path) -> Iterator[Server]:
    yield from _serve("filesystem", tmp_path)


def _serve(kind: str, folder: Path) -> Iterator[Server]:
    server = Server(kind, folder)
    yield server
    server.close()
