"""Another process on a broker: ``python -m tests.broker.peer URL NAMESPACE WHAT [DEADLINE]``.

Says what happens to it in lines on standard output.
"""

from __future__ import annotations

import os
import sys
import threading

from pyramid_durable.broker import Broker


class Teller:
    """A handler that tells; ``hold`` never returns from a command."""

    def __init__(self, *, hold: bool) -> None:
        self._hold = hold

    def announced(self, queues: set[str]) -> None:
        tell("announced", *sorted(queues))

    def message(self, text: str, queue: str) -> None:
        tell("message", text, queue)

    def command(self, body: bytes) -> None:
        tell("command", body.decode())
        if self._hold:
            threading.Event().wait()

    def connected(self) -> None:
        tell("connected")

    def disconnected(self, exc: BaseException) -> None:
        tell("disconnected")


def tell(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def listen(broker: Broker, *, hold: bool = False) -> None:
    """Until it is killed, or its standard input ends."""
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    broker.listen(["default"], f"peer-{os.getpid()}", Teller(hold=hold), stop, commands=hold)


def announce_and_end(broker: Broker) -> None:
    broker.announce(["default"])


def fork(broker: Broker) -> None:
    """Publish, fork in the middle of a flood from other threads, publish in both."""
    broker.send_message("before", "default")
    flooding = threading.Event()

    def flood() -> None:
        while not flooding.is_set():
            broker.announce(["mail"])

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    for end in (os._exit, sys.exit):
        child = os.fork()
        if child == 0:
            broker.send_message("child", "default")
            end(0)
        tell("child", str(os.waitpid(child, 0)[1]))
    flooding.set()
    broker.send_message("parent", "default")


def main(url: str, namespace: str, what: str, deadline: str = "5") -> None:
    broker = Broker(url, namespace=namespace, deadline=float(deadline))
    if what == "listen":
        listen(broker)
    elif what == "hold":
        listen(broker, hold=True)
    elif what == "announce":
        announce_and_end(broker)
    elif what == "fork":
        fork(broker)


if __name__ == "__main__":
    main(*sys.argv[1:])
