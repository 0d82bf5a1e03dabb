"""The least that PostgreSQL has to do for a batch of jobs: claimed and completed by bare SQL.

What a daemon does beside it is left out: no request, no call, no transaction of the job's, no
fence, no look at what is paused. (python -m benchmarks.endurance.raw URL: one such process)
"""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

import psycopg

from ..stand import ROOT, Stand
from .work import PRIORITY, QUEUE

BATCH = 100

CLAIM = """
    UPDATE durable_job
    SET state = 'running', owner = %(me)s, claim_no = claim_no + 1, due_at = NULL,
        started_at = statement_timestamp()
    WHERE id IN (
        SELECT id FROM durable_job
        WHERE queue = %(queue)s AND priority = %(priority)s AND due_at <= statement_timestamp()
        ORDER BY due_at FOR UPDATE SKIP LOCKED LIMIT %(batch)s
    )
    RETURNING id, func, payload
"""

COMPLETE = """
    UPDATE durable_job
    SET state = 'succeeded', owner = NULL, attempt = 1, finished_at = statement_timestamp()
    WHERE id = ANY(%s)
"""


def work_off(url: str) -> None:
    """Claim and complete until nothing is due; each is a transaction."""
    values = {"me": str(uuid4()), "queue": QUEUE, "priority": PRIORITY, "batch": BATCH}
    with psycopg.connect(url, autocommit=True) as connection:
        print("ready", flush=True)
        sys.stdin.readline()
        while rows := connection.execute(CLAIM, values, prepare=True).fetchall():
            connection.execute(COMPLETE, [[row[0] for row in rows]], prepare=True)


def run(made: Stand, number: int) -> None:
    """Have so many processes do so at once, and wait until they have."""
    url = made.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks.endurance.raw", url]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            assert process.wait() == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    work_off(sys.argv[1])
