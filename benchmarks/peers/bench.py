"""One contender at one work: its services, its worker processes, its producer and the witness."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ..stand import ROOT
from .contender import Contender
from .environments import environment
from .place import Place, empty_place
from .witness import Witness

STALLED = 60.0
"""Seconds without one more job run, after which the contender counts as stuck."""
LOOK = 0.02
"""Seconds between two looks at the witness: a copy and a count of a byte for each job."""


class Failure(Exception):
    """A contender did not do the work; the text says how, and goes into the table."""


class Bench:
    """What a work sees."""

    def __init__(self, contender: Contender, place: Place, jobs: int, deadline: float) -> None:
        self.contender = contender
        self.place = place
        self.jobs = jobs
        self.deadline = deadline
        self.witness = Witness.create(place.witness, jobs)
        self._programs = environment(contender)
        self._log = (place.folder / "log").open("ab")
        self._workers: list[subprocess.Popen[bytes]] = []
        self._environ = {
            **os.environ,
            **place.environ(),
            **contender.environ,
            "PYTHONPATH": str(ROOT),
        }

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._programs / program), *arguments]

    def _start(self, command: list[str], **pipes: Any) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": self._log, **pipes}
        return subprocess.Popen(
            command,
            cwd=self.place.folder,
            env=self._environ,
            stderr=self._log,
            start_new_session=True,
            **pipes,
        )

    def _producer_command(self, *arguments: str) -> list[str]:
        module = f"{__package__}.producer"
        return self._command("python", "-m", module, self.contender.module, *arguments)

    def setup(self) -> None:
        """Let it make its tables."""
        if (code := self._start(self._producer_command("setup")).wait(120)) != 0:
            raise Failure(f"its setup ended with code {code}")

    @contextmanager
    def producer(self, live: bool = False) -> Iterator[Producer]:
        """A process of its own that enqueues, as long as the block lasts; ``live``: beside workers."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        if live and self.contender.runs_in_producer:
            self._environ["BENCH_LIVE"] = "1"
        process = self._start(self._producer_command(), **pipes)
        try:
            yield Producer(process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
        finally:
            _end(process, signal.SIGKILL)

    def start_workers(self) -> None:
        """Start its two worker processes; the producer is the worker where it has to be."""
        if "BENCH_LIVE" in self._environ:
            return
        for program, *arguments in self.contender.workers(self.place):
            self._workers.append(self._start(self._command(program, *arguments)))

    def wait_until(self, what: str, count: Callable[[], int], wanted: int) -> None:
        """Wait until the count is reached; Failure when it stands still, or the time is up."""
        seen, moved = -1, time.monotonic()
        while (found := count()) < wanted:
            now = time.monotonic()
            if found != seen:
                seen, moved = found, now
            if now - moved > STALLED:
                raise Failure(f"stuck: {found} of {wanted} jobs {what}, and no more in a minute")
            if now > self.deadline:
                raise Failure(f"too slow: {found} of {wanted} jobs {what} in the time limit")
            for worker in self._workers:
                if (code := worker.poll()) is not None:
                    raise Failure(f"a worker ended with code {code}")
            time.sleep(LOOK)

    def wait_for_all(self, jobs: int) -> float:
        """Wait until so many jobs have run and its record says so; when that was, by the clock."""
        self.wait_until("run", self.witness.ran, jobs)
        ended = max(self.witness.starts)
        if self.contender.finished is not None:
            finished = self.contender.finished
            self.wait_until("in its record", lambda: finished(self.place), jobs)
            ended = time.time()
        return ended

    def verify(self, jobs: int) -> None:
        """After the workers have stopped: every job run, and run once."""
        ran, doubled = self.witness.ran(), self.witness.doubled()
        if ran != jobs or doubled:
            raise Failure(f"{jobs - ran} of {jobs} jobs lost, {doubled} run more than once")

    def stop_workers(self) -> None:
        """End the workers as their operator would."""
        for process in self._workers:
            _end(process, signal.SIGTERM)
        self._workers.clear()

    def close(self) -> None:
        self.stop_workers()
        self._log.close()


class Producer:
    """Requests to producer.py; its methods are the requests."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._requests: IO[bytes] = process.stdin
        self._answers: IO[bytes] = process.stdout

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer; Failure when the producer died of the question."""
        try:
            self._requests.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise Failure(f"its producer died at {do!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def bench(contender: Contender, folder: Path, jobs: int, most_seconds: float) -> Iterator[Bench]:
    """A bench on empty services, with room for so many jobs."""
    deadline = time.monotonic() + most_seconds
    with ExitStack() as stack:
        place = stack.enter_context(
            empty_place(folder, contender.database, contender.redis, contender.queues)
        )
        made = Bench(contender, place, jobs, deadline)
        stack.callback(made.close)
        made.setup()
        yield made


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Signal a process, then whatever is left of its group."""
    if process.poll() is None:
        process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
