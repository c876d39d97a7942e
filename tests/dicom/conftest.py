"""Small scans for series that are generated in the tests."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def scan() -> np.ndarray:
    """HU, int, (z, y, x) = (8, 20, 24), different everywhere, air and tissue."""
    z, y, x = np.indices((8, 20, 24))
    body = (x - 12) ** 2 + (y - 9) ** 2 < 49
    noise = np.random.default_rng(3).integers(-30, 30, body.shape)
    return np.where(body, 40 + 5 * z, -980) + noise


@pytest.fixture
def oblique() -> np.ndarray:
    """Directions (columns x, y, z) turned about all axes."""
    a, b, c = np.deg2rad([21.0, -13.0, 8.0])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rx @ ry @ rz
