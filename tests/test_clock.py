"""Moments: integer nanoseconds inside, aware datetimes outside."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho.clock import SystemClock, from_datetime, to_datetime


@pytest.mark.parametrize(
    ("moment_ns", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_999, datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (-62_135_596_800 * 10**9, datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_moment_is_shown_to_the_microsecond_below(moment_ns: int, moment: datetime) -> None:
    assert to_datetime(moment_ns) == moment
    assert to_datetime(moment_ns).utcoffset() == timedelta(0)


@given(st.datetimes(timezones=st.timezones()))
def test_a_datetime_of_any_zone_survives(moment: datetime) -> None:
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:  # The first and the last day of the calendar reach beyond it in other zones.
        return
    assert to_datetime(from_datetime(moment)) == expected


def test_a_naive_datetime_is_no_moment() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_clock_of_the_system_tells_the_time_of_day() -> None:
    before = time.time_ns()
    assert before <= SystemClock().now_ns() <= time.time_ns()
