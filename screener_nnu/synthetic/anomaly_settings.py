"""Number, size and contrast of synthetic anomalies."""

from __future__ import annotations

from dataclasses import dataclass

from screener_nnu.errors import ScreenerError

Range = tuple[float, float]


@dataclass(frozen=True)
class BlobSettings:
    """How many blobs a scan gets, where they may lie, and what becomes of their tissue.

    Attributes:
        mean_count: mean of the Poisson distribution of their number (at least one is drawn).
        radius: smallest and largest radius in mm.
        edge: width of the soft edge in mm.
        body_share: share of the body's volume that the blobs of a scan are to fill. Radii are
            scaled towards it within their range: were a small body as full of anomalies as a
            large one is empty, closeness to the centre would find them in the pool of all scans.
        highest_auroc: AUROC that no position alone may exceed within a scan.
        contrast: smallest and largest HU difference of `hypodense` and `hyperdense`. Most lesions
            differ from what surrounds them by less than the tissues do among each other.
        displacement: smallest and largest movement in mm that `deformation` asks for.
        visible: mean absolute change in HU of a blob below which `pasted`, `constant` and
            `deformation` are drawn again; less would be lost in the noise.

    Raises:
        ScreenerError: when a number makes no sense.
    """

    mean_count: float = 5.0
    radius: Range = (6.0, 20.0)
    edge: float = 5.0
    body_share: float = 0.0075
    highest_auroc: float = 0.55
    contrast: Range = (40.0, 120.0)
    displacement: Range = (4.0, 12.0)
    visible: float = 50.0

    def __post_init__(self) -> None:
        """Checks every number."""
        for name in ("mean_count", "edge", "visible"):
            if not getattr(self, name) > 0:
                raise ScreenerError(f"{name} {getattr(self, name)}: give a number above 0")
        for name in ("radius", "contrast", "displacement"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ScreenerError(
                    f"{name} {low} {high}: give the smallest and the largest, both above 0"
                )
        if not 0 < self.body_share <= 0.2:
            raise ScreenerError(f"body_share {self.body_share}: give a share above 0, up to 0.2")
        if not 0.5 < self.highest_auroc <= 1:
            raise ScreenerError(f"highest_auroc {self.highest_auroc}: it lies above 0.5, up to 1")
