"""Plans and checkpoints without the names of cases, which may be those of patients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Plan, SplitSettings
from screener_nnu.pretext_settings import PACKAGE
from screener_nnu.stage_checkpoint import OF_TEACHER, WEIGHTS

# Everything else of a checkpoint serves to go on training: optimiser, generators, head, log, and
# the hash of an earlier stage's file, which is another file now.
KEPT = (
    *WEIGHTS,
    OF_TEACHER,
    "trainer_name",
    "inference_allowed_mirroring_axes",
    "nnssl_adaptation_plan",
    "citations",
    "score_statistics",
    "channels",
    "scales",
    "features",
)
# Other entries of `dataset.json` may list the files of cases.
DATASET_KEYS = ("channel_names", "labels", "numTraining", "file_ending")
# Of our fingerprint: what is pooled over all scans.
HISTOGRAM_KEYS = ("hu_histogram", "foreground_intensity_properties_per_channel")


def case_names(plan: Plan) -> set[str]:
    """All cases that a plan names."""
    split = plan.settings.split
    return {*split.train, *split.validation, *split.test, *plan.settings.left_out}


def case_counts(plan: Plan) -> dict[str, int]:
    """How many cases a plan has, by their use."""
    split = plan.settings.split
    uses = {use: len(getattr(split, use)) for use in ("train", "validation", "test", "normal")}
    return {**uses, "left_out": len(plan.settings.left_out)}


def plan_without_cases(plan: Plan) -> dict[str, Any]:
    """The dictionary of a plan without the names of cases; its one configuration stands alone."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    settings = plan.settings
    pretext = replace(settings.pretext, weights=_without_folders(settings.pretext.weights))
    baseline = replace(settings.baseline, options=_plain_options(settings.baseline.options))
    split = SplitSettings((), (), ())
    empty = replace(settings, split=split, left_out={}, pretext=pretext, baseline=baseline)
    values = plan.with_settings(empty).to_dict()
    values.pop("continue_training", None)
    name = plan.configuration_name
    block = PlansManager(values).get_configuration(name).configuration
    return {**values, "configurations": {name: block}}


def _plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(options.get("weights"), str):
        return {**options, "weights": _without_folders(options["weights"])}
    return dict(options)


def _without_folders(weights: str) -> str:
    """The name of a file of first weights, without the folders of a user's machine."""
    return weights if weights in ("", PACKAGE) else Path(weights).name


def dataset_without_cases(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of nnU-Net's `dataset.json` that describe the data set as a whole."""
    return {key: dataset_json[key] for key in DATASET_KEYS if key in dataset_json}


def checkpoint_without_cases(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What prediction and fine-tuning need of a stage's checkpoint, as plain values."""
    plan = plan_without_cases(checkpoint["plan"])
    arguments = {
        "plans": plan,
        "configuration": checkpoint["plan"].configuration_name,
        "fold": "all",
        "dataset_json": dataset_without_cases(checkpoint["init_args"]["dataset_json"]),
    }
    kept = {key: checkpoint[key] for key in KEPT if key in checkpoint}
    return {**kept, "plan": plan, "init_args": arguments}


def refuse_names(values: Any, names: Iterable[str], where: str) -> None:
    """Makes sure that no text names a case, whoever wrote it.

    Names that could as well be a word or a number of the format (shorter than four characters;
    shorter than eight, without a digit) are not looked for.

    Raises:
        ScreenerError: a name stands in one of the texts.
    """
    text = "\n".join(_texts(values))
    for name in names:
        if len(name) < 4 or (len(name) < 8 and not any(c.isdigit() for c in name)):
            continue
        if name in text and re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text):
            raise ScreenerError(
                f"{where} names the case {name}: a model file must not name scans; change that "
                "text and export again"
            )


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(values, (list, tuple)) and not isinstance(values, torch.Size):
        for value in values:
            yield from _texts(value)
