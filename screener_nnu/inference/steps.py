"""What is done with one scan: it is read, its map is computed, and both become files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import SimpleITK as sitk  # noqa: N813

from screener_nnu.inference.map_folder import AnomalyMap, MapFolder
from screener_nnu.preprocessing.reading import RawImage, Source, read_image

if TYPE_CHECKING:
    from screener_nnu.inference.predict import Predictor


@dataclass(frozen=True)
class Steps:
    """The three steps of a scan, which `Pipeline` may carry out side by side for three scans.

    Attributes:
        predictor: a trained model.
        maps: where the files go.
        there: cases that have a map already, of which the rest is made.
        body_shares: of each scan that was computed, the share of it that the body takes.
    """

    predictor: Predictor
    maps: MapFolder
    there: Collection[str]
    body_shares: dict[str, float] = field(default_factory=dict)

    def read(self, case: str, source: Source) -> RawImage:
        """The scan."""
        modality = self.predictor.plan.settings.preprocessing.modality
        return read_image(source, case, modality)

    def compute(self, raw: RawImage) -> AnomalyMap:
        """Its map, or that of an earlier run."""
        if raw.case in self.there:
            return self.maps.read_of(raw)
        result = self.predictor.predict(raw)
        self.body_shares[raw.case] = float(sitk.GetArrayViewFromImage(result.body).mean())
        return result

    def write(self, case: str, source: Source, raw: RawImage, result: AnomalyMap) -> None:
        """The files."""
        if case not in self.there:
            self.maps.write(case, source, result)
        if self.maps.extras is not None:
            self.maps.extras.write(case, raw, result)

    def all_of(self, items: Mapping[str, Source]) -> None:
        """The three steps of each scan, one after the other."""
        for case, source in items.items():
            raw = self.read(case, source)
            self.write(case, source, raw, self.compute(raw))
