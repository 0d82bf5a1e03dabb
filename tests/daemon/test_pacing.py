from pyramid_durable.pacing import (
    FIRST_CLAIM,
    LARGEST_BUFFER,
    SHARES,
    Pace,
    buffer_size,
    fair_room,
    needs_another,
    room,
)


def test_a_buffer_holds_a_tenth_of_a_second_of_work():
    assert buffer_size(Pace(seconds=0.01), moving=10) == 100
    assert buffer_size(Pace(seconds=0.05), moving=10) == 20


def test_slow_jobs_are_not_buffered():
    assert buffer_size(Pace(seconds=5), moving=10) == 0


def test_threads_that_are_held_up_do_not_count():
    assert buffer_size(Pace(seconds=0.01), moving=0) == 0
    assert buffer_size(Pace(seconds=0.01), moving=1) == 10


def test_the_buffer_is_bounded_however_fast_jobs_are():
    assert buffer_size(Pace(seconds=0), moving=10) == LARGEST_BUFFER


def test_room_is_for_idle_threads_and_the_rest_of_the_buffer():
    assert room(idle=3, busy=1, waiting=0, buffer=0) == 3
    assert room(idle=0, busy=1, waiting=10, buffer=100) == 90
    assert room(idle=0, busy=1, waiting=0, buffer=0) == 0


def test_there_is_no_room_while_busy_threads_have_half_a_buffer_left():
    assert room(idle=0, busy=1, waiting=51, buffer=100) == 0
    assert room(idle=0, busy=1, waiting=50, buffer=100) == 50


def test_threads_that_are_left_idle_on_purpose_ask_for_no_more_than_busy_ones():
    assert room(idle=9, busy=1, waiting=900, buffer=1000) == 0
    assert room(idle=9, busy=1, waiting=500, buffer=1000) == 509
    assert room(idle=9, busy=1, waiting=9, buffer=10) == 10


def test_threads_without_work_begin_while_more_is_claimed():
    assert room(idle=10, busy=0, waiting=0, buffer=1000) == FIRST_CLAIM
    assert room(idle=10, busy=0, waiting=0, buffer=50) == 60
    assert room(idle=300, busy=0, waiting=0, buffer=1000) == 300
    assert room(idle=9, busy=1, waiting=0, buffer=1000) == 1009
    assert room(idle=10, busy=0, waiting=10, buffer=1000) == 1000


def test_a_large_claim_takes_a_share_of_what_is_due():
    assert fair_room(1000, due=SHARES * 1000) == 1000
    assert fair_room(1000, due=SHARES * 500) == 500
    assert fair_room(1000, due=100) == FIRST_CLAIM
    assert fair_room(150, due=0) == 150


def test_there_is_never_less_than_no_room():
    assert room(idle=1, busy=1, waiting=500, buffer=100) == 0


def test_a_pace_follows_what_is_measured():
    pace = Pace(seconds=0.02)
    assert pace.after(0, 0.0) == pace
    fast = pace.after(1000, 0.1)
    assert fast.seconds < 0.002
    slow = fast.after(1, 10.0)
    assert fast.seconds < slow.seconds < 1.0
    assert fast.after(500, 5000.0).seconds > 5.0


def test_jobs_that_wait_for_something_are_worth_another_thread():
    assert needs_another(0, seconds=0.001, late=0.0001)
    assert needs_another(20, seconds=0.01, late=0.0001)


def test_slow_jobs_are_worth_another_thread_also_where_the_interpreter_is_busy():
    assert needs_another(3, seconds=0.02, late=0.005)


def test_quick_jobs_in_a_busy_interpreter_are_left_to_the_thread_that_has_them():
    assert not needs_another(100, seconds=0.02, late=0.005)


def test_the_first_guess_is_forgotten_with_the_first_claim():
    first = Pace().after(60, 0.006)
    assert buffer_size(first, moving=10) > 500
    assert Pace().after(1, 0.0001).seconds > 0.003, "one job tells little"
