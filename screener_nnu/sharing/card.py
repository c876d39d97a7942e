"""The model card: what a person wants to know before using a model of somebody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from screener_nnu.detectors import STUDENT, TEACHER, ModelRef
from screener_nnu.preprocessing.modality import MODALITIES, PICTURE
from screener_nnu.score_units import NO_UNIT

_NOTICE = (
    "This is research software and no medical device: a map shows what is rare, not what is ill. "
    "What is common in the scans that the model learned from, pathology or artefact, it does not "
    "mark. The file names no scan; that nothing about single scans can be inferred from trained "
    "weights is not promised."
)
_UNSTATED = "not stated; ask whom you have the file from before you use it"


def model_card(description: Mapping[str, Any]) -> str:
    """The Markdown text of `MODEL_CARD.md`.

    Args:
        description: the values of `model.json`.
    """
    model = ModelRef(
        description["dataset"], description["plans_name"], description.get("detector", STUDENT)
    )
    parts = [
        f"# {model.title}",
        description["description"] or "No description was given.",
        f"**Licence of the weights:** {description['license'] or _UNSTATED}",
        "## Data",
        _data(description["scans"], description["settings"]["modality"]),
        "## Settings",
        _table(("setting", "value"), description["settings"].items()),
        "## Training",
        _training(description["training"]),
        "## Scores",
        _scores(model, description["score_statistics"]),
        _calibration(model, description["calibration"]),
        "## Use",
        _use(model, description["teacher_plans"], description["settings"]["configuration"]),
        "## Limits",
        _NOTICE,
        "## Versions",
        _table(("package", "version when exported"), description["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _data(scans: Mapping[str, int], modality: str) -> str:
    what = "" if modality == PICTURE else " scans"
    known = f" ({scans['normal']} of them known to be normal)" if scans["normal"] else ""
    return (
        f"Unlabelled {MODALITIES[modality].title}: {scans['train']}{what} to train on{known}, "
        f"{scans['validation']} to validate, {scans['test']} kept for evaluation, "
        f"{scans['left_out']} left out."
    )


def _training(stages: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            stage,
            values["steps"],
            values["figure"],
            _figure(values["untrained"]),
            _figure(values["trained"]),
            "yes" if values["included"] else "no",
        )
        for stage, values in stages.items()
    ]
    header = ("stage", "steps", "figure", "untrained", "trained", "weights inside")
    return _table(header, rows)


def _scores(model: ModelRef, statistics: Mapping[str, float]) -> str:
    learned = "what the student learned" if model.detector == STUDENT else f"the {model.detector}"
    return (
        f"Of {learned}, on body positions of training scans{_in_unit(model)}: "
        + ", ".join(f"{key} {value:.3f}" for key, value in statistics.items())
        + ". Outside the body a map holds the lowest."
    )


def _in_unit(model: ModelRef) -> str:
    return "" if model.spec.unit == NO_UNIT else f", in {model.spec.unit}"


def _calibration(model: ModelRef, calibrations: Mapping[str, Mapping[str, Any]]) -> str:
    if not calibrations:
        return "Not calibrated: screener_calibrate does it with scans of your own."
    lines = []
    for stage, values in calibrations.items():
        scores = ", ".join(f"{key} {value:.3f}" for key, value in values["percentiles"].items())
        lines.append(
            f"Calibrated ({stage}) on {values['scans']} held-out scans ({values['source']}); "
            f"percentiles of their body voxels{_in_unit(model)}: {scores}."
        )
    return "\n\n".join(lines)


def _use(model: ModelRef, teacher_plans: str | None, configuration: str) -> str:
    lines = ["screener_install_model FILE.zip", f"{model.command('predict')} -i scans -o maps"]
    if teacher_plans:
        teacher = replace(model, plans=teacher_plans, detector=TEACHER)
        lines.append(f"{teacher.command('predict')} -i scans -o teacher_maps")
    end = ""
    if model.detector == STUDENT:
        source = model.command("finetune").removeprefix("screener_finetune -d ")
        lines.append(f"screener_finetune -d 502 --source {source} -f 0")
        end = f"\n\nThe student's UNet is nnU-Net's network of `{configuration}`."
    return "\n".join(f"    {line}" for line in lines) + end


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
