"""A picture of a test set: scans before and after, with the contour of the anomalies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.files import replacing
from screener_nnu.preprocessing.reading import CANONICAL, Source, read_image
from screener_nnu.preprocessing.volumes import read_volume
from screener_nnu.synthetic.anomaly_case import CaseFiles

_SCANS = 4
# In this window (HU) fat and muscle still differ, and lung is not black.
_WINDOW = (-1000, 400)


def write_preview(folder: Path, images: Mapping[str, Source]) -> None:
    """Writes `preview.png`: a few scans in the axial slice with most anomaly, front up.

    Args:
        folder: of one kind of anomaly.
        images: path (or DICOM series) of the image of each case without anomalies.
    """
    # Imported here: it takes seconds, and the processes that paint do not need it.
    from matplotlib.figure import Figure

    complete = [case for case in sorted(images) if CaseFiles(folder, case).complete()]
    if not complete:
        return
    chosen = [complete[i * len(complete) // _SCANS] for i in range(min(_SCANS, len(complete)))]
    figure = Figure(figsize=(3.2 * len(chosen), 5.6), layout="constrained", facecolor="black")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for column, case in zip(axes.T, chosen, strict=True):
        _draw(column, case, images[case], CaseFiles(folder, case))
    with replacing(folder / "preview.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw(column: Any, case: str, source: Source, files: CaseFiles) -> None:
    """One scan: before, and after with contours."""
    before, after = read_image(source, case), read_image(files.image, case)
    mask = _read_mask(files.mask)
    z = int(mask.sum(axis=(1, 2)).argmax())
    aspect = after.spacing[1] / after.spacing[2]
    for axis, image in zip(column, (before, after), strict=True):
        axis.imshow(image.array[z], cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1], aspect=aspect)
        axis.set_axis_off()
    if np.ptp(mask[z]):
        column[1].contour(mask[z], levels=[0.5], colors="orange", linewidths=0.8)
    column[0].set_title(case, color="white", fontsize=8)


def _read_mask(path: Path) -> np.ndarray:
    """A mask with its axes turned to LPS, (z, y, x)."""
    image = sitk.DICOMOrient(read_volume(path, path.name), CANONICAL)
    return np.asarray(sitk.GetArrayFromImage(image))
