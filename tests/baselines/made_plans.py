"""Plans of small volumes and of small pictures in memory, whose baseline is a given method."""

from __future__ import annotations

from collections.abc import Sequence

from screener_nnu.detectors import OTHER_METHODS
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.plans import Plan

VOLUME, PICTURE = "volume", "picture"
_VALUES = {"mean": -50.0, "median": 0.0, "std": 200.0, "min": -900.0, "max": 900.0}
_VALUES |= {"percentile_00_5": -900.0, "percentile_99_5": 900.0}
_PIXELS = {**_VALUES, "mean": 0.5, "std": 1.0, "min": 0.0, "max": 255.0}
_PIXELS |= {"percentile_00_5": 0.0, "percentile_99_5": 255.0}
_FINGERPRINTS = {
    VOLUME: {
        "spacings": [[9.0, 9.0, 9.0]] * 4,
        "body_extents_mm": [[180.0, 240.0, 240.0]] * 4,
        "foreground_intensity_properties_per_channel": {"0": _VALUES},
        "hu_histogram": {"edges": [-1000.0, 0.0, 1000.0], "counts": [2, 1]},
        "cases": {f"case_{i}": {} for i in range(4)},
    },
    PICTURE: {
        "modality": "picture",
        "highest": 255.0,
        "spacings": [[999.0, 1.0, 1.0]] * 4,
        "body_extents_mm": [[999.0, 48.0, 64.0]] * 4,
        "foreground_intensity_properties_per_channel": {"0": _PIXELS},
        "hu_histogram": {"edges": [0.0, 100.0, 256.0], "counts": [2, 1]},
        "cases": {f"case_{i}": {} for i in range(4)},
    },
}

# Settings that make a method small enough for a test.
_SLICES = ("baseline.options.side=32", "baseline.options.code=8")
_SMALL = {
    "cflow": (*_SLICES, "baseline.options.blocks=2", "baseline.options.hidden=8"),
    "msflow": (*_SLICES, "baseline.options.blocks=[1,1,2]"),
}


def method_plan(kind: str, method: str, settings: Sequence[str] = ()) -> Plan:
    """The plan that a detector of a name is trained with, on images of a few voxels.

    Args:
        kind: `volume`, of (16, 16, 16) voxels, or `picture`, of (1, 48, 64).
        method: a name of `OTHER_METHODS`.
        settings: more of them.
    """
    planner = ScreenerPlanner(_FINGERPRINTS[kind], "Dataset901_Made", preset="cpu", width=4)
    plan = planner.plan()
    size = "[16, 16, 16]" if kind == VOLUME else "[1, 48, 64]"
    own = [f"baseline.method={method}", *OTHER_METHODS[method][1], f"baseline.crop_size={size}"]
    small = _SMALL.get(method, ())
    return plan.with_settings(plan.settings.override([*own, *small, *settings]))
