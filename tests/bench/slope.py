"""Whether something grows: a line through measures by least squares, and how sure its slope is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import linear_regression

SURE = 2.0  # standard errors that a slope must be above nothing to count


@dataclass(frozen=True, slots=True)
class Slope:
    """What the measures rise by for each unit of what they stand at, and the standard error of that."""

    rise: float
    error: float

    def grows(self, least: float) -> bool:
        """Surely, and by more than `least`."""
        return self.rise - SURE * self.error > 0 and self.rise > least


def slope(places: Sequence[float], measures: Sequence[float]) -> Slope:
    """Three of each at least. A measure that moves in steps (an allocator asks the kernel for much at once) is no
    normal noise: the error is then too small rather than too big, which lets no growth pass for none."""
    line = linear_regression(places, measures)
    off = sum(
        (measure - line.intercept - line.slope * place) ** 2
        for place, measure in zip(places, measures, strict=True)
    )
    middle = sum(places) / len(places)
    spread = sum((place - middle) ** 2 for place in places)
    return Slope(line.slope, sqrt(off / (len(places) - 2) / spread))
