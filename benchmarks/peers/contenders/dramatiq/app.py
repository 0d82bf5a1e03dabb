"""dramatiq's side."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import witness

if os.environ["BENCH_BROKER"] == "redis":
    broker = RedisBroker(url=os.environ["BENCH_REDIS"])
else:
    # pika takes the path behind the first slash for the virtual host's name, and quoted.
    broker = RabbitmqBroker(url=re.sub("//$", "/%2F", os.environ["BENCH_AMQP"]))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"])
def work(number: int) -> None:
    witness.work(number)


class App:
    def enqueue(self, number: int) -> None:
        work.send(number)

    def enqueue_at(self, numbers: Sequence[int], when: float) -> None:
        for number in numbers:
            delay = max(0, round((when - time.time()) * 1000))
            work.send_with_options(args=(number,), delay=delay)


@contextmanager
def opened() -> Iterator[App]:
    yield App()
    broker.close()
