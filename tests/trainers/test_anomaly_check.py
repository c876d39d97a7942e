"""The label-free figure against scikit-learn on the voxels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.cases import anomalous_case


@pytest.fixture
def trainer(trained: Any) -> Any:
    made = trained.trainer("density", 'condition.kind="none"')
    made.check.fill()
    return made


def first_channel(y: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
    assert c is None
    return y[:, 0]


def test_figure_is_the_auroc_of_voxels(trainer: Any) -> None:
    figures = trainer.check.auroc(first_channel)
    assert set(figures) == {*KINDS, "mean"}
    assert figures["mean"] == pytest.approx(np.mean([figures[kind] for kind in KINDS]))
    for kind in KINDS:
        scores, labels = [], []
        for case in trainer.settings.split.validation:
            made, _ = trainer.check._anomalous(case, kind)
            y, _ = trainer.check.store.files.read(trainer.check._name(case, kind))
            voxels = y[0, 0].numpy().repeat(2, 0).repeat(2, 1).repeat(2, 2)
            voxels = voxels[tuple(slice(0, n) for n in made.hu.shape)]
            counted = made.body | made.mask
            scores.append(voxels[counted])
            labels.append(made.mask[counted])
        expected = roc_auc_score(np.concatenate(labels), np.concatenate(scores))
        assert figures[kind] == pytest.approx(expected, abs=1e-6)


def test_positions_of_the_body_are_enough_for_a_score_without_neighbours(trainer: Any) -> None:
    shapes: list[torch.Size] = []

    def scattered(y: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        shapes.append(y.shape)
        return first_channel(y, c)

    assert trainer.check.auroc(scattered, reach=0) == trainer.check.auroc(first_channel)
    assert {shape[3:] for shape in shapes} == {(1, 1)}


def test_only_validation_scans_are_painted(trainer: Any) -> None:
    split = trainer.settings.split
    assert set(trainer.check.names) == set(split.validation)
    stored = trainer.cases_folder.with_name(f"{trainer.cases_folder.name}_maps")
    painted = {path.name.split("__")[0] for path in stored.glob("*/*__*.npy")}
    assert painted == set(split.validation)


def test_anomalies_are_a_function_of_seed_case_and_kind(trainer: Any) -> None:
    cases, settings = trainer.check.cases, trainer.settings.preprocessing
    case, others = trainer.settings.split.validation[0], trainer.settings.split.train[:2]
    one, same = (anomalous_case(cases, case, others, "hyperdense", settings, 3) for _ in range(2))
    np.testing.assert_array_equal(one.hu, same.hu)
    other = anomalous_case(cases, case, others, "hyperdense", settings, 4)
    assert (one.hu != other.hu).any() and (one.mask != other.mask).any()
    clean = cases.read(case, "hu")
    assert (one.hu[one.mask] > clean[one.mask]).mean() > 0.9
    far = ~one.mask & (one.hu == clean)
    assert far.mean() > 0.5
    stored = cases.read(case, "equalised").astype(np.float32)
    np.testing.assert_array_equal(one.equalised[one.hu == clean], stored[one.hu == clean])


def test_a_part_of_a_scan_keeps_its_place(trained: Any) -> None:
    """Position as a condition is that in the whole scan, as in training, not that in the part."""
    small = "inference.teacher_tile=[8, 8, 8]"
    check = trained.trainer("density", 'condition.kind="sincos"', small).check
    case, moved = check.names[0], 0
    for kind in KINDS:
        made, part = check._anomalous(case, kind)
        whole = check.cases.shape(case, "hu")
        assert part.extent == whole and made.hu.shape != whole
        moved += any(part.start)
        check._stored(case, kind)
        _, found = check.store.files.read(check._name(case, kind))
        assert found is not None
        everywhere = check.store.features.condition(
            torch.zeros(1, 1, *whole), torch.zeros(1, 3), torch.tensor([whole])
        )
        cell = check.store.features.pooling
        expected = torch.nn.functional.avg_pool3d(everywhere, cell)
        first = np.array(part.start) // cell
        # What is not a whole position at the far end of the scan is filled up with air.
        size = np.array(made.hu.shape) // cell
        box = tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))
        inside = tuple(slice(0, n) for n in size)
        np.testing.assert_allclose(
            found[(..., *inside)].numpy(), expected[(..., *box)].numpy(), atol=1e-5
        )
    assert moved


def test_a_new_tile_makes_new_parts(trained: Any) -> None:
    checks = [
        trained.trainer("density", f"inference.teacher_tile=[{n}, 8, 8]").check for n in (8, 16)
    ]
    one, other = (check._name("a", "pasted") for check in checks)
    assert one != other
