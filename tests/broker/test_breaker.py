"""The breaker's arithmetic, with the test's clock."""

from __future__ import annotations

from pyramid_durable.broker.publisher import Breaker


def test_it_is_closed_at_first() -> None:
    assert not Breaker().is_open(0)


def test_it_stays_open_longer_each_time_up_to_a_ceiling() -> None:
    breaker = Breaker(first=1, ceiling=5)
    now = 100.0
    pauses = []
    for _ in range(5):
        pause = breaker.failed(now)
        assert breaker.is_open(now + pause - 0.01)
        now += pause
        assert not breaker.is_open(now)
        pauses.append(pause)
    assert pauses == [1, 2, 4, 5, 5]


def test_a_success_closes_it_and_forgets() -> None:
    breaker = Breaker(first=1, ceiling=5)
    breaker.failed(100)
    breaker.failed(100)
    assert breaker.succeeded()
    assert not breaker.is_open(100)
    assert not breaker.succeeded(), "there was nothing to recover from"
    assert breaker.failed(200) == 1
