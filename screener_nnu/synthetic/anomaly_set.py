"""A test set without annotators: synthetic anomalies in unlabelled scans, written to disk."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from screener_nnu.synthetic.anomalies import KINDS, add_anomalies
from screener_nnu.synthetic.anomaly_tissue import Donor
from screener_nnu.synthetic.fields import Triple
from screener_nnu.synthetic.placement import (
    BlobSettings,
    BoolArray,
    Placement,
    PositionScores,
    place_blobs,
)

logger = logging.getLogger(__name__)

BodyFunction = Callable[[NDArray[Any], Triple], BoolArray]


def synthesize_test_set(
    images: Sequence[Path],
    output: Path,
    seed: int,
    kinds: Sequence[str] = KINDS,
    body_function: BodyFunction | None = None,
    settings: BlobSettings | None = None,
) -> None:
    """Writes every scan once per kind of anomaly, with its mask, in the geometry of the input.

    Files are `<kind>/images/<case>_0000.nii.gz` and `<kind>/masks/<case>.nii.gz`, and
    `placement.json` with the seeds and the AUROC that position alone reaches: per scan and kind,
    and pooled over the scans of a kind.

    Args:
        images: HU images that SimpleITK reads, named `<case>_0000.<ending>`; the donor of a scan is
            another one of them (itself, at another place, when there is only one).
        output: folder to write to.
        seed: every draw is a function of seed, scan and kind.
        kinds: some of `KINDS`.
        body_function: (HU, spacing in mm) -> body mask; None takes the one of the preprocessing.
        settings: number, size and softness of the blobs.

    Raises:
        ValueError: when there is no image, two have the same case name, or a kind is unknown.
    """
    cases = [case_name(path) for path in images]
    if not cases or len(set(cases)) < len(cases):
        raise ValueError(f"Give at least one image, and each case once; got {cases}.")
    writer = _TestSetWriter(images, output, seed, body_function or _default_body(), settings)
    report: dict[str, Any] = {"seed": seed, "kinds": {}}
    for number, kind in enumerate(kinds):
        pooled = PositionScores()
        scans = {}
        for i, case in enumerate(cases):
            scans[case], placement = writer.write(i, kind, number, pooled)
            pooled = pooled + placement.scores
        report["kinds"][kind] = {"pooled_auroc": pooled.auroc(), "scans": scans}
        logger.info("%s: position alone reaches AUROC %.3f", kind, max(pooled.auroc().values()))
    (output / "placement.json").write_text(json.dumps(report, indent=2) + "\n")


def case_name(path: Path) -> str:
    """Name of the case in `<case>_0000.<ending>`.

    Example:
        >>> case_name(Path("imagesTs/chest_07_0000.nii.gz"))
        'chest_07'
    """
    return re.sub(r"(_0000)?\.(nii\.gz|[^.]+)$", "", path.name)


def _default_body() -> BodyFunction:
    """The body mask of the preprocessing, imported only when it is needed."""
    from screener_nnu.preprocessing.body import body_mask

    return body_mask


class _TestSetWriter:
    """Draws and writes one scan after another; holds two scans at a time.

    Args:
        images: paths of the scans.
        output: folder to write to.
        seed: first part of every seed.
        body_function: (HU, spacing) -> body mask.
        settings: settings of the blobs.
    """

    def __init__(
        self,
        images: Sequence[Path],
        output: Path,
        seed: int,
        body_function: BodyFunction,
        settings: BlobSettings | None,
    ) -> None:
        """Remembers where everything is."""
        self.images, self.output, self.seed = list(images), output, seed
        self.body_function, self.settings = body_function, settings

    def write(
        self, number: int, kind: str, kind_number: int, earlier: PositionScores
    ) -> tuple[dict[str, Any], Placement]:
        """Writes one scan with anomalies of one kind; returns its record and its places."""
        path = self.images[number]
        seed = [self.seed, number, kind_number]
        rng = np.random.default_rng(seed)
        donor_path = self._donor(number, rng)
        image, scan = self._read(path)
        donor = self._read(donor_path)[1] if donor_path != path else scan
        placement = place_blobs(scan.body, scan.spacing, rng, self.settings, earlier)
        changed, mask = add_anomalies(
            *(scan.image_hu, scan.body, scan.spacing),
            *(donor.image_hu, donor.body, donor.spacing),
            kind,
            rng,
            placement=placement,
        )
        self._save(changed, image, kind, "images", f"{case_name(path)}_0000.nii.gz")
        self._save(mask, image, kind, "masks", f"{case_name(path)}.nii.gz")
        record = {
            "seed": seed,
            "donor": case_name(donor_path),
            "blobs": [{"centre_mm": b.centre, "radius_mm": b.radius} for b in placement.blobs],
            "auroc": placement.auroc,
        }
        return record, placement

    def _donor(self, number: int, rng: np.random.Generator) -> Path:
        """Another scan of the list."""
        others = [path for i, path in enumerate(self.images) if i != number]
        return others[rng.integers(len(others))] if others else self.images[number]

    def _read(self, path: Path) -> tuple[SimpleITK.Image, Donor]:
        """Reads a scan and finds its body."""
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        x, y, z = image.GetSpacing()
        spacing = (float(z), float(y), float(x))
        return image, Donor(array, self.body_function(array, spacing), spacing)

    def _save(
        self, array: NDArray[Any], geometry: SimpleITK.Image, kind: str, folder: str, name: str
    ) -> None:
        """Writes an array in the geometry of an image."""
        image = SimpleITK.GetImageFromArray(array)
        image.CopyInformation(geometry)
        target = self.output / kind / folder
        target.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(target / name), useCompression=True)
