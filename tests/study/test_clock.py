from hwsearch.study.clock import Clock


class Hand:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_left_counts_earlier_parts_and_may_fall_below_zero() -> None:
    hand = Hand()
    clock = Clock(60.0, earlier_s={"data": 10.0, "trials": 5.0}, now=hand)
    hand.now_s += 20.0
    assert (clock.spent_s, clock.left_s, clock.deadline_s) == (35.0, 25.0, 145.0)
    hand.now_s += 30.0
    assert clock.left_s == -5.0
    assert Clock(None, now=hand).left_s is None


def test_phases_add_up_to_the_whole_and_inner_ones_are_not_counted_twice() -> None:
    hand = Hand()
    clock = Clock(None, earlier_s={"trials": 5.0}, now=hand)
    hand.now_s += 1.0
    for _ in range(2):
        with clock.phase("trials"):
            hand.now_s += 2.0
            with clock.phase("sampler"):
                hand.now_s += 3.0
    assert clock.wall_s() == {"trials": 9.0, "sampler": 6.0, "other": 1.0}
    assert sum(clock.wall_s().values()) == clock.spent_s


def test_mean_is_of_what_was_told() -> None:
    clock = Clock(None)
    assert clock.mean_s("export") is None
    clock.took("export", 1.0)
    clock.took("export", 2.0)
    assert clock.mean_s("export") == 1.5
