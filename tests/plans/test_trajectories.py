"""Trajectories: what they cover, that they travel as JSON, and refusals."""

import json

import numpy as np
import pytest

from ptychrome.plans.trajectories import fermat, jittered, lines, positions, rows, square


def test_square_of_the_issue_has_21_by_21_positions():
    points = positions(square(3e-6, 150e-9))
    assert points.shape == (441, 2)
    assert points.min(axis=0) == pytest.approx([-1.5e-6, -1.5e-6])
    assert points.max(axis=0) == pytest.approx([1.5e-6, 1.5e-6])
    assert len(np.unique(points.round(12), axis=0)) == 441


def test_square_runs_along_x_and_back():
    points = positions(square(2.0, 1.0))
    assert points.tolist() == [[-1, -1], [0, -1], [1, -1], [1, 0], [0, 0], [-1, 0], [-1, 1], [0, 1], [1, 1]]
    plain = positions(square(2.0, 1.0, snake=False))
    assert plain[3].tolist() == [-1, 0]


def test_rows_are_finer_than_their_distance():
    points = positions(rows(3e-6, 75e-9, 150e-9))
    assert points.shape == (41 * 21, 2)
    assert [len(np.unique(axis.round(12))) for axis in points.T] == [41, 21]
    np.testing.assert_allclose(positions(rows(1e-6, 1e-7, 1e-7)), positions(square(1e-6, 1e-7)))


@pytest.mark.parametrize("snake", [True, False])
@pytest.mark.parametrize(
    "trajectory", [square(1e-6, 2e-7, center_m=(1e-6, 0.0)), rows(1e-6, 1e-7, 2e-7)], ids=["square", "rows"]
)
def test_lines_are_straight_and_make_up_the_positions(trajectory, snake):
    trajectory = trajectory | {"snake": snake}
    found = lines(trajectory)
    np.testing.assert_array_equal(np.concatenate(found), positions(trajectory))
    assert len(found) == 6
    ways = []
    for line in found:
        steps = np.diff(line, axis=0)
        np.testing.assert_allclose(steps, steps[:1] + 0 * steps, atol=1e-18)  # rounding of microns
        ways.append(np.sign(steps[0, 0]))
    assert ways == ([1, -1] * 3 if snake else [1] * 6)


@pytest.mark.parametrize(
    "trajectory",
    [jittered(1e-6, 1e-7), fermat(1e-6, 1e-7), {"kind": "points", "x": [0.0, 1.0], "y": [0.0, 0.0]}],
)
def test_what_has_no_lines_does_not_fly(trajectory):
    with pytest.raises(ValueError, match=f"'{trajectory['kind']}' cannot be flown; expected .*'square' or"):
        lines(trajectory)


def test_center_moves_everything():
    center = (1e-6, -2e-6)
    for make in (square, jittered, fermat):
        moved, still = positions(make(1e-6, 1e-7, center_m=center)), positions(make(1e-6, 1e-7))
        np.testing.assert_allclose(moved - still, np.tile(center, (len(still), 1)), atol=1e-18)


def test_jitter_stays_within_its_fraction_and_follows_the_seed():
    regular = positions(square(1e-6, 1e-7))
    first, again = (
        positions(jittered(1e-6, 1e-7, jitter=0.3, seed=5)),
        positions(jittered(1e-6, 1e-7, jitter=0.3, seed=5)),
    )
    other = positions(jittered(1e-6, 1e-7, jitter=0.3, seed=6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    displacement = np.abs(first - regular)
    assert displacement.max() <= 0.3e-7
    assert displacement.max() > 0.25e-7  # of 242 uniform draws the largest is nearly the bound


def test_fermat_has_the_density_of_its_step_everywhere():
    points = positions(fermat(3e-6, 150e-9))
    assert len(points) == pytest.approx(400, rel=0.05)  # (3 µm / 150 nm)²
    assert np.abs(points).max() <= 1.5e-6
    quadrants = [
        np.sum((np.sign(points) == sign).all(axis=1)) for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1))
    ]
    assert np.ptp(quadrants) <= 10  # 100 each; the spiral is even but for its rim
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points))
    # neighbours of a Fermat spiral stay 1.6 to 1.9 c apart, c = step / √π; one step is 1.77 c
    assert distances.min() > 0.8 * 150e-9


def test_snake_saves_way_on_a_fermat_spiral():
    def way(points):
        return np.linalg.norm(np.diff(points, axis=0), axis=1).sum()

    snake, outwards = positions(fermat(3e-6, 150e-9)), positions(fermat(3e-6, 150e-9, snake=False))
    assert {tuple(point) for point in snake} == {tuple(point) for point in outwards}
    assert way(snake) < 0.3 * way(outwards)  # successive points of the spiral lie 137.5° apart


@pytest.mark.parametrize(
    "trajectory",
    [square(1e-6, 3e-7), rows(1e-6, 1e-7, 3e-7), jittered(1e-6, 3e-7, seed=3), fermat(1e-6, 3e-7)],
)
def test_trajectories_travel_as_json(trajectory):
    received = json.loads(json.dumps(trajectory))
    assert received == trajectory
    np.testing.assert_array_equal(positions(received), positions(trajectory))


def test_points_are_taken_as_they_are():
    points = positions({"kind": "points", "x": [0.0, 1e-6], "y": [2e-6, 3e-6]})
    assert points.tolist() == [[0.0, 2e-6], [1e-6, 3e-6]]


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        ({"kind": "circle"}, "trajectory: .*circle"),
        ({"width_m": 1e-6}, "trajectory: "),
        ({"kind": "square", "width_m": 1e-6}, "step_m"),
        ({"kind": "square", "width_m": -1e-6, "step_m": 1e-7}, "width_m"),
        ({"kind": "square", "width_m": 1e-6, "step_m": 1e-7, "sneak": True}, "sneak"),
        ({"kind": "square", "width_m": 1e-7, "step_m": 1e-6}, "exceeds width_m"),
        ({"kind": "rows", "width_m": 1e-6, "step_m": 1e-7}, "row_m"),
        ({"kind": "rows", "width_m": 1e-6, "step_m": 1e-7, "row_m": 2e-6}, "row_m 2e-06 exceeds width_m"),
        ({"kind": "square", "width_m": 3.0, "step_m": 150e-9}, "more than 1000000"),
        ({"kind": "jittered", "width_m": 1e-6, "step_m": 1e-7, "jitter": 2}, "jitter"),
        ({"kind": "points", "x": [0.0, 1.0], "y": [0.0, 1.0, 2.0]}, "2 x but 3 y"),
        ({"kind": "points", "x": [0.0], "y": [0.0]}, "at least 2"),
        ({"kind": "points", "x": [0.0, float("nan")], "y": [0.0, 0.0]}, "finite"),
    ],
)
def test_positions_refuses(trajectory, message):
    with pytest.raises(ValueError, match=message):
        positions(trajectory)


def test_builders_refuse_at_once():
    with pytest.raises(ValueError, match="exceeds width_m"):
        square(1e-7, 1e-6)
