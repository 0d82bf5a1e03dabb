"""A daemon that is killed when it has stored a command and not acknowledged it yet."""

from __future__ import annotations

import os
import signal
import sys
import threading

from pyramid.paster import get_app

from pyramid_durable.intake import Intake


class DyingIntake(Intake):
    def take(self, body: bytes) -> None:
        super().take(body)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    import pyramid_durable.daemon

    pyramid_durable.daemon.Intake = DyingIntake  # type: ignore[misc]
    get_app(sys.argv[1]).registry.scheduler.start()
    threading.Event().wait(60)


if __name__ == "__main__":
    main()
