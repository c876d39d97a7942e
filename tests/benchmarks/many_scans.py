"""Thousands of different scans in a minute: a few computed phantoms, each with noise of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

_PHANTOMS = 20
_NOISE_HU = 10.0


def write_many_scans(
    raw: Path, dataset: str, count: int, spacing: tuple[float, float, float], labels: bool = False
) -> None:
    """A data set of so many scans `phantom_<number>` in nnU-Net's layout.

    Args:
        raw: nnU-Net's folder of raw data sets.
        dataset: full name.
        count: of scans.
        spacing: voxel size (mm), (z, y, x).
        labels: write the lesions' labels, too.
    """
    import SimpleITK as sitk  # noqa: N813

    from screener_nnu.synthetic import write_phantom_dataset

    few = min(count, _PHANTOMS)
    write_phantom_dataset(raw, dataset, few, 1, lesion_labels=labels, spacing=spacing)
    folder = raw / dataset
    first = [sitk.ReadImage(str(path)) for path in sorted((folder / "imagesTr").iterdir())]
    for number in range(few, count):
        of = number % few
        values = sitk.GetArrayFromImage(first[of]).astype(np.float32)
        noise = np.random.default_rng(number).normal(0, _NOISE_HU, values.shape)
        image = sitk.GetImageFromArray(np.rint(values + noise).astype(np.int16))
        image.CopyInformation(first[of])
        sitk.WriteImage(image, str(folder / "imagesTr" / f"phantom_{number:04d}_0000.nii.gz"))
        if labels:
            label = folder / "labelsTr" / f"phantom_{of:04d}.nii.gz"
            shutil.copyfile(label, label.with_name(f"phantom_{number:04d}.nii.gz"))
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps({**description, "numTraining": count}))
