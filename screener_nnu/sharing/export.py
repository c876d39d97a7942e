"""Writes a trained model as one file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from screener_nnu.calibration.record import Calibration
from screener_nnu.calibration.store import load_calibration
from screener_nnu.checkpoints import write_whole
from screener_nnu.detectors import STUDENT, ModelRef
from screener_nnu.detectors import TEACHER as TEACHER_DETECTOR
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import (
    FINGERPRINT_FILE,
    dataset_name,
    preprocessed_folder,
    stage_folder,
    train_command,
)
from screener_nnu.plans import TEACHER
from screener_nnu.sharing.archive import ModelWriter, json_bytes
from screener_nnu.sharing.card import model_card
from screener_nnu.sharing.description import main_settings, package_versions, training_figures
from screener_nnu.sharing.manifest import (
    CARD,
    DATASET,
    FORMAT,
    HISTOGRAM,
    MARKER,
    StageFile,
    format_version,
    is_dataset_name,
    last_stage,
    plan_member,
)
from screener_nnu.sharing.plan_check import check_plan
from screener_nnu.sharing.scrub import (
    HISTOGRAM_KEYS,
    case_counts,
    case_names,
    checkpoint_without_cases,
    dataset_without_cases,
    refuse_names,
)
from screener_nnu.sharing.stages import teacher_stages
from screener_nnu.stage_checkpoint import StageCheckpoint, finished_stage


@dataclass(frozen=True)
class ExportRequest:
    """What to write.

    Attributes:
        dataset: data set that the model learned from, number or name.
        plans_name: plan of the detector.
        teacher: whether descriptor, condition and density go along with a student.
        license: terms of the weights, for the card.
        description: free text for the card.
        detector: that the file is made for.
    """

    dataset: int | str
    plans_name: str
    teacher: bool = False
    license: str | None = None
    description: str = ""
    detector: str = STUDENT

    @property
    def model(self) -> ModelRef:
        """The detector."""
        return ModelRef(dataset_name(self.dataset), self.plans_name, self.detector)


def export_model(request: ExportRequest, output: Path) -> dict[str, Any]:
    """Writes the model file, whole or not at all.

    Returns:
        The values of `model.json`, without the list of files.

    Raises:
        ScreenerError: a stage has not been trained, or a text would name a case.
    """
    dataset = dataset_name(request.dataset)
    _check_source(dataset)
    last, file = last_stage(request.model), request.model.file
    checkpoint = StageCheckpoint(file, request.model.stage, request.model.train_command).read()
    if request.detector == STUDENT:
        before, included = _behind_student(request, dataset, last, checkpoint)
    else:
        before = included = _behind_others(request, checkpoint)
    described = list(dict.fromkeys([*before, last]))
    included = list(dict.fromkeys([*included, last]))
    description = _description(request, dataset, checkpoint)
    description["training"] = _training(dataset, described, included)
    calibrations = _calibrations(dataset, included)
    description["calibration"] = {f.stage: _summary(c) for f, c in calibrations.items()}
    names = _all_names(dataset, described)
    refuse_names(description, names, "the description or the licence")

    def write(stream: BinaryIO) -> None:
        with ModelWriter(stream) as writer:
            _add_stages(writer, dataset, included, names)
            for file, calibration in calibrations.items():
                writer.add(file.calibration_member, json_bytes(calibration.to_dict()))
            _add_data(writer, dataset, checkpoint["init_args"]["dataset_json"])
            writer.add(CARD, model_card(description).encode())
            writer.finish(description)

    output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(output, write)
    return description


def _behind_student(
    request: ExportRequest, dataset: str, student: StageFile, checkpoint: Mapping[str, Any]
) -> tuple[list[StageFile], list[StageFile]]:
    """Stages of the teacher, for the card, and those of them that go into the file.

    Raises:
        ScreenerError: the student has no teacher, or another one than it was trained with.
    """
    target = checkpoint["plan"].settings.distillation.target
    if target != TEACHER:
        if request.teacher:
            raise ScreenerError(
                f"the student of {request.plans_name} learned {target} and has no teacher: leave "
                "--teacher out"
            )
        return [], []
    plans = _teacher_plans(request, checkpoint)
    teacher = _teacher_files(dataset, plans, request.teacher)
    if teacher:
        _check_teacher(dataset, plans, checkpoint, request.teacher)
    return teacher, teacher if request.teacher else []


def _behind_others(request: ExportRequest, checkpoint: Mapping[str, Any]) -> list[StageFile]:
    """All stages of a detector that is no student, but the last one where that holds them all.

    Raises:
        ScreenerError: the teacher is asked for as well, or the stages do not belong together.
    """
    if request.teacher:
        raise ScreenerError(
            f"--teacher goes along with a student; a file of {request.detector} has all of its "
            "stages: leave it out"
        )
    stages = []
    if request.model.stage == "density":
        stages = teacher_stages(request.model.trained_plans, checkpoint["plan"].settings)
    request.model.load(torch.device("cpu"))
    return stages


def _teacher_plans(request: ExportRequest, student: Mapping[str, Any]) -> str:
    plans: str = student["plan"].settings.distillation.density_plans
    return plans or request.plans_name


def _check_source(dataset: str) -> None:
    if not is_dataset_name(dataset):
        raise ScreenerError(
            f"'{dataset}' cannot stand in a model file: a name has the letters a to z, digits, "
            "'_', '.' and '-'"
        )
    if (preprocessed_folder(dataset) / MARKER).is_file():
        raise ScreenerError(
            f"{dataset} was itself installed from a model file, which names no scans and holds no "
            "training log: pass that file on"
        )


def _check_teacher(
    dataset: str, density_plans: str, student: Mapping[str, Any], whole: bool
) -> None:
    """Refuses stages that do not belong together, as some do after one was trained anew.

    Without the teacher in the file as well: its card shows how the teacher was trained.
    """
    from screener_nnu.trainers.stages import trainer_of

    now = trainer_of("distillation").upstream(dataset, student["plan"])
    other = student.get("upstream", now) != now
    if whole and not other:
        teacher = ModelRef(dataset, density_plans, TEACHER_DETECTOR).load(torch.device("cpu"))
        other = teacher.statistics != student["score_statistics"]
    if other:
        command = train_command(dataset, "distillation", student["plan"].name)
        raise ScreenerError(
            f"the density of {density_plans} was trained anew after its student; run\n"
            f"    {command} --restart"
        )


def _add_stages(
    writer: ModelWriter, dataset: str, included: list[StageFile], names: set[str]
) -> None:
    """Checkpoints, and the plan that each was trained with; of two, that of the later stage."""
    plans = {}
    for file in included:
        content = checkpoint_without_cases(_read(dataset, file))
        _check(content, names, file)
        plans[file.plans_name] = content["plan"]
        writer.add(file.member, _saved(content))
    for plans_name, plan in plans.items():
        writer.add(plan_member(plans_name), json_bytes(plan))


def _calibrations(dataset: str, included: list[StageFile]) -> dict[StageFile, Calibration]:
    """Those that belong to the weights; they hold numbers alone, in an order of their own."""
    found = {
        file: load_calibration(ModelRef(dataset, file.plans_name, file.detector))
        for file in included
        if file.has_scores
    }
    return {file: calibration for file, calibration in found.items() if calibration is not None}


def _summary(calibration: Calibration) -> dict[str, Any]:
    """What the card tells of a calibration."""
    scores = {f"p{p:g}": calibration.score_at(p) for p in (50.0, 99.0, 99.9)}
    return {"scans": calibration.scans, "source": calibration.source, "percentiles": scores}


def _add_data(writer: ModelWriter, dataset: str, dataset_json: Mapping[str, Any]) -> None:
    writer.add(DATASET, json_bytes(dataset_without_cases(dataset_json)))
    histogram = _histogram(dataset)
    if histogram:
        writer.add(HISTOGRAM, json_bytes(histogram))


def _read(dataset: str, file: StageFile) -> dict[str, Any]:
    return finished_stage(dataset, file.stage, file.plans_name).read()


def _teacher_files(dataset: str, density_plans: str, needed: bool) -> list[StageFile]:
    """Those of the teacher that are there; all of them, when they are needed."""
    density = StageFile(density_plans, "density")
    if not needed and not _path(dataset, density).is_file():
        return []
    stages = teacher_stages(density_plans, _read(dataset, density)["plan"].settings)
    return [file for file in stages if needed or _path(dataset, file).is_file()]


def _path(dataset: str, file: StageFile) -> Path:
    return stage_folder(dataset, file.stage, file.plans_name) / "checkpoint_final.pth"


def _description(
    request: ExportRequest, dataset: str, checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    plan = checkpoint["plan"]
    return {
        "format": FORMAT,
        "format_version": format_version(request.detector),
        "dataset": dataset,
        "plans_name": request.plans_name,
        "detector": request.detector,
        "teacher_plans": _teacher_plans(request, checkpoint) if request.teacher else None,
        "license": request.license,
        "description": request.description,
        "scans": case_counts(plan),
        "settings": main_settings(plan),
        "score_statistics": checkpoint["score_statistics"],
        "versions": package_versions(),
    }


def _training(
    dataset: str, stages: list[StageFile], included: list[StageFile]
) -> dict[str, dict[str, Any]]:
    return {
        file.stage: {
            "plans_name": file.plans_name,
            "included": file in included,
            **training_figures(file.stage, _read(dataset, file)),
        }
        for file in stages
    }


def _all_names(dataset: str, stages: list[StageFile]) -> set[str]:
    """Names of all cases that went into the stages, and of those that planning left out."""
    names: set[str] = set()
    for file in stages:
        names |= case_names(_read(dataset, file)["plan"])
    path = preprocessed_folder(dataset) / FINGERPRINT_FILE
    if path.is_file():
        fingerprint = json.loads(path.read_text())
        names |= {*fingerprint.get("cases", {}), *fingerprint.get("skipped", {})}
    return names


def _check(content: dict[str, Any], names: set[str], file: StageFile) -> None:
    texts = {key: value for key, value in content.items() if key != "features"}
    refuse_names(texts, names, f"the plan or checkpoint of {file.member}")
    check_plan(content["plan"], file.plans_name)


def _saved(content: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def _histogram(dataset: str) -> dict[str, Any]:
    """The pooled HU histogram of the bodies of all planned scans, which baselines are made from."""
    path = preprocessed_folder(dataset) / FINGERPRINT_FILE
    if not path.is_file():
        return {}
    fingerprint = json.loads(path.read_text())
    whole = all(key in fingerprint for key in HISTOGRAM_KEYS)
    return {key: fingerprint[key] for key in HISTOGRAM_KEYS} if whole else {}
