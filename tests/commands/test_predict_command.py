"""`screener_predict --fast`: the same plan with tiles that do not overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.predict import main


def maps_of(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(p for p in folder.glob("*.nii.gz") if not p.name.endswith("_body.nii.gz"))
    return {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in files}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["student", "teacher"])
def test_fast_leaves_overlap_out_and_says_so(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for scan in sorted((trained.raw / "imagesTr").iterdir())[:2]:
        (images / scan.name).symlink_to(scan)
    request = ["-d", "901", "-i", str(images), "-device", "cpu"]
    request += ["--teacher"] if model == "teacher" else []
    main([*request, "-o", str(tmp_path / "usual")])
    assert "--fast" not in capsys.readouterr().out
    main([*request, "-o", str(tmp_path / "fast"), "--fast"])
    assert "AUROC" in capsys.readouterr().out
    usual, fast = maps_of(tmp_path / "usual"), maps_of(tmp_path / "fast")
    assert list(usual) == list(fast) and len(usual) == 2
    for name, values in usual.items():
        # The student's tiles are smaller than these scans, the teacher's are not.
        assert np.array_equal(values, fast[name]) == (model == "teacher")
        assert np.isfinite(fast[name]).all()
