"""Sets of pictures for studies: splits of public ones, and slices of phantoms with lesions.

Each is written as a CSV table, or as pictures with one, which `screener_import` takes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Row = dict[str, object]


def busi(folder: Path, table: Path, seed: int, train: int = 40) -> Path:
    """Breast ultrasound (BUSI): `normal`, `benign` and `malignant`, some normal ones to train."""
    normal = sorted(folder.glob("normal/*.png"))
    order = np.random.default_rng(seed).permutation(len(normal))
    rows: list[Row] = [
        {"path": normal[place], "label": 0, "split": "train" if rank < train else "test"}
        for rank, place in enumerate(order)
    ]
    for kind in ("benign", "malignant"):
        files = sorted(folder.glob(f"{kind}/*.png"))
        rows += [{"path": path, "label": 1, "split": "test"} for path in files]
    return _write(table, rows)


def sarcoma_slices(folder: Path, table: Path, seed: int, patients: int = 10) -> Path:
    """T1 MR slices of Soft-tissue-Sarcoma: `images` and `masks`, `sts_<patient>_..._<kind>.png`.

    Normal slices of some patients to train, all slices of the others to test.
    """
    files = sorted(folder.glob("images/*.png"))
    names = sorted({path.name.split("_")[1] for path in files})
    chosen = set(np.random.default_rng(seed).permutation(names)[:patients].tolist())
    rows: list[Row] = []
    for path in files:
        patient, tumour = path.name.split("_")[1], path.stem.endswith("tumour")
        row: Row = {"path": path, "label": int(tumour), "group": patient}
        if patient not in chosen:
            rows.append({**row, "split": "test", "mask": folder / "masks" / path.name})
        elif not tumour:
            rows.append({**row, "split": "train", "mask": ""})
    return _write(table, rows)


def pneumonia(archive: Path, table: Path, seed: int, train: int = 600, test: int = 400) -> Path:
    """PneumoniaMNIST: pictures of 28 x 28 beside the table, normal ones to train.

    The set holds some pictures twice, which an import refuses in train and test: once is enough.
    """
    from PIL import Image

    stored = np.load(archive)
    images = np.concatenate([stored["train_images"], stored["val_images"]])
    labels = np.concatenate([stored["train_labels"], stored["val_labels"]])[:, 0]
    _, first = np.unique(images, axis=0, return_index=True)
    images, labels = images[np.sort(first)], labels[np.sort(first)]
    rng = np.random.default_rng(seed)
    normal, ill = (rng.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    pictures = table.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for label, split, places in (
        (0, "train", normal[:train]),
        (0, "test", normal[train : train + test]),
        (1, "test", ill[:test]),
    ):
        for place in places:
            path = pictures / f"{'np'[label]}{place:04d}.png"
            Image.fromarray(images[place]).save(path)
            rows.append({"path": path, "label": label, "split": split})
    return _write(table, rows)


def phantom_slices(table: Path, seed: int, train: int = 60, test: int = 30) -> Path:
    """Axial slices of computed phantoms of the trunk, three a phantom, with masks of lesions."""
    from PIL import Image

    from screener_nnu.synthetic import generate_phantom

    pictures = table.with_suffix("")
    (pictures / "masks").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(train + test):
        split = "train" if number < train else "test"
        phantom = generate_phantom(int(rng.integers(2**62)), (4.0, 3.0, 3.0), 4 * (split == "test"))
        area = phantom.lesion_mask.sum(axis=(1, 2))
        depth = len(area)
        places = rng.choice(np.arange(depth // 5, depth - depth // 5), 3, replace=False)
        if split == "test":  # one with as much lesion as there is, one without
            without = np.flatnonzero(area[depth // 5 : -depth // 5] == 0) + depth // 5
            places = [int(area.argmax()), *rng.choice(without, min(2, len(without)), replace=False)]
        for place in places:
            grey = np.clip((phantom.image_hu[place] + 200.0) / 500.0, 0, 1) * 255
            mask = phantom.lesion_mask[place] > 0
            name = f"phantom_{number:03d}_{place:03d}.png"
            Image.fromarray(grey.astype(np.uint8)).save(pictures / name)
            Image.fromarray(mask.astype(np.uint8) * 255).save(pictures / "masks" / name)
            rows.append(
                {
                    "path": pictures / name,
                    "label": int(mask.any()),
                    "split": split,
                    "mask": pictures / "masks" / name if split == "test" else "",
                    "group": f"phantom{number}",
                }
            )
    return _write(table, rows)


def _write(table: Path, rows: Iterable[Row]) -> Path:
    """A table with the columns that `screener_import` knows."""
    rows = list(rows)
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table
