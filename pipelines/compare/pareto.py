"""Which trials are worth their time: those that no other one beats in both score and cost."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, score) that none other equals at less cost or betters at no more; by rising cost.

    >>> pareto_front([(10, 50.0), (20, 60.0), (15, 45.0), (30, 60.0)])
    [0, 1]
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
