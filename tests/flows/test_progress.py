"""The time that is left, by the pace of the last half minute."""

from flows.progress import TimeLeft, clock_time


def test_the_time_left_follows_the_pace():
    left = TimeLeft()
    assert left.estimate(0.0, 10, 100) is None
    assert left.estimate(5.0, 20, 100) == 40.0


def test_a_pace_of_long_ago_is_forgotten():
    left = TimeLeft()
    for second in range(200):
        estimate = left.estimate(float(second), min(second, 100) * 10 + max(second - 100, 0), 2000)
    assert estimate == 901.0


def test_times_as_people_write_them():
    assert [clock_time(s) for s in (5, 125, 3725)] == ["0:05", "2:05", "1:02:05"]
