"""Vectors of scans in records: scored alone, together, and alone again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.densities.enhanced import MeanShiftDensity
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.densities.vector_scores import COHORT
from screener_nnu.errors import ScreenerError
from screener_nnu.outputs.cohort import VectorRequest, score_vectors
from screener_nnu.outputs.extras import read_record
from screener_nnu.outputs.scan_vectors import packed, unpacked
from screener_nnu.outputs.table import write_table
from screener_nnu.plans import write_json

torch.set_num_threads(1)


def vectors_of(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, 5, generator=generator) + torch.arange(5.0)


@pytest.fixture
def detector() -> Any:
    """A density that knows 40 scans; that is all of a detector that is needed."""
    density = StandardisedDensity(MeanShiftDensity(5), 0.0)
    rows = vectors_of(40, 0)
    density.accumulate(rows.T[None, :, :, None, None])
    density.finish_statistics()
    density.fit(rows, None, torch.Generator().manual_seed(0))
    density.fit_vectors(rows, [f"normal {number}" for number in range(40)])
    return SimpleNamespace(by_position=True, density=density.eval())


def write_records(folder: Path, detector: Any, vectors: torch.Tensor, first: int = 0) -> list[str]:
    """What prediction leaves of cases."""
    names = [f"case_{number}" for number in range(first, first + len(vectors))]
    for name, vector in zip(names, vectors, strict=True):
        scores = detector.density.vector_scores(vector)
        head = {"case": name, "model": "m", "case_score": 1.0, "vector": packed(vector.numpy())}
        write_json(folder / f"{name}.json", {**head, "vector_scores": scores})
    return names


def test_a_cohort_of_two_runs_and_back(
    detector: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = vectors_of(12, 1)
    names = write_records(tmp_path, detector, vectors[:7])
    names += write_records(tmp_path, detector, vectors[7:], 7)  # the rest of a run that was killed
    alone = [read_record(tmp_path, name) for name in names]
    density = detector.density
    rows = (vectors - density.y_mean) / density.y_std
    expected = density.density.vectors.score(rows, COHORT, names)

    score_vectors(tmp_path, names, detector, VectorRequest(COHORT))
    assert "These scores depend on the other images of this batch (12)" in caplog.text
    found = [read_record(tmp_path, name) for name in names]
    for column, values in expected.items():
        scores = [record["vector_scores"][column] for record in found]
        np.testing.assert_allclose(scores, values.tolist(), rtol=1e-5, atol=1e-6)
    assert [r["vector"] for r in found] == [r["vector"] for r in alone]
    text = write_table(tmp_path, names, {}).read_text()
    header, row = (line.split(",") for line in text.splitlines()[:2])
    cells = dict(zip(header, row, strict=True))
    assert (cells["vector_cohort"], cells["vector_cohort_size"]) == ("true", "12")

    score_vectors(tmp_path, names[:3], detector, VectorRequest())
    back = [read_record(tmp_path, name) for name in names]
    assert back == alone[:3] + found[3:]


def test_settings_of_the_cohort(detector: Any, tmp_path: Path) -> None:
    names = write_records(tmp_path, detector, vectors_of(12, 1))
    score_vectors(tmp_path, names, detector, VectorRequest(COHORT))
    first = read_record(tmp_path, names[0])
    request = VectorRequest(COHORT, {"gaussian_on": "joint_train"})
    score_vectors(tmp_path, names, detector, request)
    second = read_record(tmp_path, names[0])
    assert first["vector_scores"]["gaussian"] != second["vector_scores"]["gaussian"]
    assert first["vector_scores"]["displacement"] == second["vector_scores"]["displacement"]


def test_records_without_a_vector_keep_their_scores(
    detector: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = write_records(tmp_path, detector, vectors_of(3, 1))
    older = {"case": "old", "model": "m", "vector_scores": {"knn": 1.0}}
    write_json(tmp_path / "old.json", older)
    score_vectors(tmp_path, [*names, "old"], detector, VectorRequest(COHORT))
    assert read_record(tmp_path, "old") == older
    assert "no vector is kept of old" in caplog.text
    assert read_record(tmp_path, names[0])["vector_scores"]["cohort_size"] == 3


def test_what_no_cohort_can_be_made_of(detector: Any) -> None:
    without = SimpleNamespace(by_position=False)
    with pytest.raises(ScreenerError, match="take --detector msde_pooled or msde"):
        VectorRequest(COHORT).refuse_unfit(without)
    with pytest.raises(ScreenerError, match="--msde_paper_bug: settings of the cohort mode"):
        VectorRequest(changes={"paper_bug": True}).refuse_unfit(detector)
    VectorRequest(COHORT, {"paper_bug": True}).refuse_unfit(detector)
    VectorRequest().refuse_unfit(without)


def test_vectors_come_back_bit_for_bit() -> None:
    vector = vectors_of(1, 4)[0].numpy()
    found = unpacked(packed(vector))
    assert found is not None and found.tobytes() == vector.tobytes()
    assert unpacked(None) is None and unpacked("###") is None
