"""What a worker makes of readings of another machine's clock."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.server_clock import DRIFT, ServerClock

_SECONDS = st.floats(min_value=1e-5, max_value=5.0)


@given(
    ahead=st.floats(min_value=-1e6, max_value=1e6),
    rate=st.floats(min_value=-DRIFT, max_value=DRIFT),
    readings=st.lists(st.tuples(_SECONDS, _SECONDS, st.floats(0.0, 1.0)), min_size=1, max_size=30),
)
def test_a_moment_is_never_further_off_than_the_bounds_say(
    ahead: float, rate: float, readings: list[tuple[float, float, float]]
) -> None:
    """However slow the answers, however two honest clocks drift apart."""
    clock = ServerClock()
    now = 1_000.0
    widths = []

    def server(own: float) -> float:
        return own + ahead + rate * (own - 1_000.0)

    for pause, trip, share in readings:
        asked = now + pause
        now = asked + trip
        jumped = clock.saw(server(asked + share * trip), asked=asked, answered=now)
        assert not jumped
        widths.append(clock.width(now))
        assert abs(clock.own(server(now)) - now) <= clock.width(now) / 2 + 1e-5
        assert clock.width(now) <= trip * (1 + 2 * DRIFT) + 1e-5
    assert all(width >= 0.0 for width in widths)


def test_an_answer_read_late_does_not_move_what_is_known() -> None:
    """The process stood still for a minute between the server's answer and reading it."""
    clock = ServerClock()
    clock.saw(5_000.0005, asked=10.0, answered=10.001)
    assert not clock.saw(5_001.0005, asked=11.0, answered=71.0)
    assert abs(clock.own(5_061.0) - 71.0) < 0.05


def test_a_jump_is_told_and_only_what_came_after_it_counts() -> None:
    clock = ServerClock()
    assert not clock.saw(5_000.0005, asked=10.0, answered=10.001)
    assert clock.saw(1_400.0, asked=11.0, answered=11.001)
    assert not clock.saw(1_401.0, asked=12.0, answered=12.001)
    assert abs(clock.own(1_401.0) - 12.0005) < 0.001
