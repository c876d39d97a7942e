"""What is asked for beside the maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from screener_nnu.calibration.record import Calibration
from screener_nnu.errors import ScreenerError
from screener_nnu.findings.find import LIMIT, Percentile
from screener_nnu.least_volume import MINIMUM_ML, PIXEL_ML
from screener_nnu.map_kind import SCANS, MapKind
from screener_nnu.outputs.products import FINDINGS, PRODUCTS
from screener_nnu.score_units import NATS

REQUEST_VERSION = 1


@dataclass(frozen=True)
class OutputRequest:
    """What is made of each map.

    Attributes:
        asked: names of `PRODUCTS`.
        threshold: of findings, and where that of a page starts (in `unit`).
        minimum_ml, limit: smallest volume of a finding (of pictures `PIXEL_ML` a pixel), and most
            findings that are listed.
        calibration: what the model's scores mean; None where that is not known.
        model_name: shown on pages.
        model: identity of the model and of how it is applied; maps of another one do not count.
        unit: of its scores, `none` where they have none.
        kind: of what is predicted.
    """

    asked: tuple[str, ...] = ()
    threshold: float | None = None
    minimum_ml: float = MINIMUM_ML
    limit: int = LIMIT
    calibration: Calibration | None = None
    model_name: str = ""
    model: str = ""
    unit: str = NATS
    kind: MapKind = SCANS

    def __post_init__(self) -> None:
        """Refuses findings without a threshold or of less than no volume, and what cannot be made.

        Raises:
            ScreenerError: there is no threshold, the smallest volume is below 0 or no number, or
                a product is not made of this kind of images.
        """
        for name in self.asked:
            product = PRODUCTS[name]
            if product.only not in (None, self.kind):
                raise ScreenerError(f"--{name}: {product.refusal}: leave it out")
        if not self.minimum_ml >= 0:
            raise ScreenerError(
                f"--min_ml {self.minimum_ml:g}: the smallest volume of a finding is 0 ml or more"
                if self.kind == SCANS
                else f"--min_px {self.minimum_ml / PIXEL_ML:g}: the smallest area of a finding is "
                "0 pixels or more"
            )
        if FINDINGS in self.asked and self.threshold is None:
            raise ScreenerError(
                "findings are the places above a threshold: give --threshold, as a number, or as "
                "p99.9 or fp1 where the model is calibrated"
            )

    @property
    def percentile(self) -> Percentile | None:
        """Place of a score among the voxels of held-out scans, 0 to 100, where it is known."""
        known = self.calibration
        if known is None:
            return None
        return lambda score: float(known.percentile(np.array([score]))[0])

    def base(self) -> list[Any]:
        """What all files of two runs must have in common."""
        known = None if self.calibration is None else self.calibration.fingerprint
        base = [REQUEST_VERSION, self.model, known]
        # Records of versions without units are of nats, and stay valid.
        return base if self.unit == NATS else [*base, self.unit]

    def products(self) -> dict[str, list[Any]]:
        """What is asked for, and what each of it depends on beside the base."""
        values: dict[str, list[Any]] = {}
        for name, product in PRODUCTS.items():
            if name in self.asked:
                listed = [values.get(FINDINGS)] if product.shows_findings else []
                values[name] = [*(getattr(self, setting) for setting in product.settings), *listed]
        return values
