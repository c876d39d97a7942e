"""Puts a model file in place as a data set, so that every command finds it."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from screener_nnu.calibration.store import FILE as CALIBRATION
from screener_nnu.errors import ScreenerError
from screener_nnu.files import file_sha256
from screener_nnu.locks import locked
from screener_nnu.paths import (
    FINGERPRINT_FILE,
    dataset_folders,
    plan_file,
    preprocessed_folder,
    preprocessed_root,
    raw_folder,
    results_folder,
    stage_folder,
)
from screener_nnu.plans import write_json
from screener_nnu.sharing.archive import extract_member, open_model
from screener_nnu.sharing.contents_check import check_contents, read_json
from screener_nnu.sharing.manifest import (
    CARD,
    DATASET,
    HISTOGRAM,
    MARKER,
    Manifest,
    StageFile,
    plan_member,
    read_manifest,
)
from screener_nnu.sharing.placing import aside, move_all, staging_folders

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class InstalledModel:
    """A model in nnU-Net's folders.

    Attributes:
        dataset: full name of the data set that it is now.
        manifest: of its file.
        sha256: of the whole file.
        fresh: whether this call put it there.
        replaced: where the folders went that were in its place.
    """

    dataset: str
    manifest: Manifest
    sha256: str
    fresh: bool = True
    replaced: tuple[Path, ...] = ()


def install_model(path: Path, number: int | None = None, overwrite: bool = False) -> InstalledModel:
    """Checks a model file and installs it, whole or not at all.

    Where it is installed already, under this number or under any when none is given, nothing is
    done.

    Args:
        path: the model file.
        number: of the data set, in place of the file's own.
        overwrite: move a data set of that number aside.

    Raises:
        ScreenerError: the file cannot be trusted or used, or the number is taken.
    """
    digest = file_sha256(path)
    with locked(preprocessed_root() / ".screener_install.lock", "nnUNet_preprocessed"):
        known = _find_installed(digest, number)
        if known is not None and (not overwrite or _is_intact(known.dataset)):
            return _require_intact(known)
        with open_model(path) as (archive, manifest):
            dataset = _renamed(manifest.dataset, number)
            old = _in_the_way(dataset, digest, overwrite)
            return _install(archive, InstalledModel(dataset, manifest, digest), old)


def _renamed(dataset: str, number: int | None) -> str:
    if number is None:
        return dataset
    if not 1 <= number <= 999:
        raise ScreenerError(f"{number} is no number of a data set: choose one from 1 to 999")
    return f"Dataset{number:03d}{dataset[10:]}"


def _find_installed(digest: str, number: int | None) -> InstalledModel | None:
    """The model of this file that an earlier call installed."""
    for marker in sorted(preprocessed_root().glob(f"Dataset*/{MARKER}")):
        dataset = marker.parent.name
        if number is not None and not dataset.startswith(f"Dataset{number:03d}_"):
            continue
        values = read_json(marker)
        if values.get("sha256") == digest:
            model = values["model"]
            manifest = read_manifest(model, [*model["files"], "model.json"])
            return InstalledModel(dataset, manifest, digest, fresh=False)
    return None


def _require_intact(known: InstalledModel) -> InstalledModel:
    if not _is_intact(known.dataset):
        raise ScreenerError(
            f"{known.dataset} was installed from this file, but its files were changed since; use "
            f"it as it is by its number, or let screener_install_model --overwrite move it aside"
        )
    return known


def _is_intact(dataset: str) -> bool:
    roots = (results_folder(dataset), preprocessed_folder(dataset))
    installed = read_json(roots[1] / MARKER)["installed"]
    return all(
        (root / name).is_file() and file_sha256(root / name) == digest
        for root, files in zip(roots, installed, strict=True)
        for name, digest in files.items()
    )


def _in_the_way(dataset: str, digest: str, overwrite: bool) -> list[Path]:
    """Folders of the number that have to be moved aside.

    Raises:
        ScreenerError: there are some, and that was not asked for, or raw scans of another name.
    """
    _remove_leftover(dataset, digest)
    folders = dataset_folders(int(dataset[7:10]))
    others = [f for f in folders if f == raw_folder(f.name) and f.name != dataset]
    if others:
        raise ScreenerError(
            f"{others[0]} holds raw scans under the number of {dataset}: choose another with "
            "screener_install_model --number"
        )
    if folders and not overwrite:
        raise ScreenerError(
            f"{folders[0]} exists: install the file under a free number (screener_install_model "
            "--number N), or move what is there aside (--overwrite)"
        )
    return [folder for folder in folders if folder != raw_folder(folder.name)]


def _remove_leftover(dataset: str, digest: str) -> None:
    """Deletes results that a killed installation of the same file left without their plan."""
    marker = results_folder(dataset) / MARKER
    if not marker.is_file() or preprocessed_folder(dataset).exists():
        return
    left = read_json(marker)
    ours = {MARKER, *(name for names in left.get("installed", ()) for name in names)}
    found = {
        path.relative_to(marker.parent).as_posix()
        for path in _files(marker.parent)
        if path.name != CALIBRATION
    }
    if left.get("sha256") == digest and found <= ours:
        shutil.rmtree(marker.parent)


def _install(archive: zipfile.ZipFile, model: InstalledModel, old: list[Path]) -> InstalledModel:
    # The plan comes last: without it, no command takes the rest for a model.
    targets = [results_folder(model.dataset), preprocessed_folder(model.dataset)]
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    _require_space(targets[0].parent, model.manifest)
    with staging_folders(targets) as staged:
        places = _places(model, dict(zip(targets, staged, strict=True)))
        for member, place in places.items():
            extract_member(archive, model.manifest, member, place)
        check_contents(model.manifest, places)
        _name_plans(model, places)
        _write_markers(model, staged)
        away = [(folder, aside(folder)) for folder in old]
        move_all([*away, *zip(staged, targets, strict=True)])
    return replace(model, replaced=tuple(place for _, place in away))


def _require_space(root: Path, manifest: Manifest) -> None:
    needed = sum(size for size, _ in manifest.files.values()) + _SPARE_BYTES
    free = shutil.disk_usage(root).free
    if needed > free:
        raise ScreenerError(
            f"{root} has {free >> 20} MB left, and the model needs {needed >> 20} MB: free some"
        )


def _places(model: InstalledModel, staged: dict[Path, Path]) -> dict[str, Path]:
    """Where each member is written for now.

    Raises:
        ScreenerError: a plan has the name of another file.
    """
    dataset, manifest = model.dataset, model.manifest

    def folder(file: StageFile) -> Path:
        return stage_folder(dataset, file.stage, file.plans_name, manifest.configuration)

    final = {
        DATASET: preprocessed_folder(dataset) / "dataset.json",
        HISTOGRAM: preprocessed_folder(dataset) / FINGERPRINT_FILE,
        CARD: results_folder(dataset) / CARD,
        **{plan_member(name): plan_file(dataset, name) for name in manifest.plans},
        **{file.member: folder(file) / "checkpoint_final.pth" for file in manifest.stages},
        **{file.calibration_member: folder(file) / CALIBRATION for file in manifest.calibrations},
    }
    taken = {str(path).lower() for path in final.values()}
    marker = preprocessed_folder(dataset) / MARKER
    if len(taken) < len(final) or str(marker).lower() in taken:
        raise ScreenerError("one of its plans has the name of another file in the same folder")
    return {
        member: root / path.relative_to(target)
        for member, path in final.items()
        for target, root in staged.items()
        if member in manifest.files and path.is_relative_to(target)
    }


def _name_plans(model: InstalledModel, places: dict[str, Path]) -> None:
    """Writes the data set's name of this machine into the plans, where it is another one."""
    for plans_name in model.manifest.plans:
        path = places[plan_member(plans_name)]
        plan = read_json(path)
        if plan["dataset_name"] != model.dataset:
            write_json(path, {**plan, "dataset_name": model.dataset})


def _write_markers(model: InstalledModel, staged: list[Path]) -> None:
    # A calibration may be made anew on scans of this machine, and the model is still the same.
    installed = [
        {
            p.relative_to(folder).as_posix(): file_sha256(p)
            for p in _files(folder)
            if p.name != CALIBRATION
        }
        for folder in staged
    ]
    values: dict[str, Any] = {
        "sha256": model.sha256,
        "installed": installed,
        "model": model.manifest.description,
    }
    for folder in staged:
        write_json(folder / MARKER, json.loads(json.dumps(values)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
