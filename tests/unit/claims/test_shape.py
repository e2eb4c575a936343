"""The shape of a published curve: what must not pass does not, and a curve that is slightly off does."""

import pytest

from claims.shape import Curve, differences

PUBLISHED = [40.0, 37.0, 33.0, 22.0]
"""A knee between the last two points."""


def differ(*ours: float, published: list[float] | None = None) -> str:
    return "; ".join(differences([Curve("a", published or PUBLISHED, ours)]))


def test_the_published_curve_itself_and_one_slightly_off_pass() -> None:
    assert not differ(*PUBLISHED)
    assert not differ(40.0, 37.5, 34.0, 24.0)


@pytest.mark.parametrize(
    ("ours", "reason"),
    [
        ((40.0, 40.0, 40.0, 40.0), "changes by"),
        ((40.0, 42.0, 44.0, 46.0), "changes by"),
        ((40.0, 35.0, 29.0, 24.5), "no knee"),
        ((40.0, 37.0, 33.0, 27.0), "off"),
        ((40.0, 33.0, 33.0, 22.0), "changes by"),
        ((40.0, 37.5, 26.0, 23.0), "changes by"),
    ],
    ids=["flat", "rising", "straight", "far at the end", "early", "knee one doubling early"],
)
def test_a_curve_of_another_shape_does_not_pass(ours: tuple[float, ...], reason: str) -> None:
    assert reason in differ(*ours)


def test_a_value_that_stays_must_stay() -> None:
    assert not differ(1.0, 0.99, published=[1.0, 0.995])
    assert "changes by" in differ(1.0, 0.97, published=[1.0, 0.995])


def test_a_loss_of_half_or_less_does_not_pass() -> None:
    assert not differ(1.0, 0.94, published=[1.0, 0.9])
    assert "changes by" in differ(1.0, 0.96, published=[1.0, 0.9])


def test_curves_in_the_other_order_do_not_pass() -> None:
    small, large = Curve("small", [1.0, 0.90], [1.0, 0.93]), Curve("large", [1.0, 0.95], [1.0, 0.92])
    assert differences([small, large]) == ["small and large change in the other order"]
