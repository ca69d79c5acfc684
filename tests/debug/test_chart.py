"""The picture of the error by layer: where things stand on its axis."""

from __future__ import annotations

import math

import pytest

from minillama.debug.chart import BOTTOM, HEIGHT, TOP, Axis


def test_the_axis_is_logarithmic_and_has_1() -> None:
    axis = Axis.of([0.002, 300.0])
    assert (axis.low, axis.high, axis.bottom, axis.top) == (-3, 3, HEIGHT - BOTTOM, TOP)
    assert [axis.y(value) for value in (0.001, 1, 1000)] == pytest.approx(
        [axis.bottom, (axis.bottom + axis.top) / 2, axis.top]
    )
    assert [label for _, label in axis.ticks()] == ["0.001", "0.01", "0.1", "1", "10", "100", "1,000"]
    assert axis.low <= 0 <= Axis.of([1e-9]).high
    assert Axis.of([1e9]).low <= 0


def test_0_and_infinity_have_places_of_their_own() -> None:
    axis = Axis.of([0.0, 5.0, math.inf])
    heights = [axis.y(value) for value in (math.inf, 5.0, 0.1, 0.0)]
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (TOP, HEIGHT - BOTTOM)
    assert len(set(heights)) == 4
    assert [label for _, label in axis.ticks()][-2:] == ["0", "∞"]
    assert [label for _, label in Axis.of([0.0]).ticks()] == ["0.1", "1", "10", "0"]


def test_there_are_few_labels_however_far_it_reaches() -> None:
    labels = [label for _, label in Axis.of([1e-12, 1e20]).ticks()]
    assert "1" in labels
    assert 4 <= len(labels) <= 8
