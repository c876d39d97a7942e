"""Which modality the images of the data sets have: stated, named, or read off the values."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from screener_nnu.errors import CaseError, ScreenerError, some
from screener_nnu.paths import dataset_name, raw_folder
from screener_nnu.preprocessing.modality import CT, MODALITIES, MR, PICTURE
from screener_nnu.preprocessing.pictures import is_picture
from screener_nnu.preprocessing.raw_dataset import find_cases, read_description
from screener_nnu.preprocessing.units import check_intensities
from screener_nnu.preprocessing.volumes import read_array
from screener_nnu.sampling.spread import spread

logger = logging.getLogger(__name__)

# Scans whose values are looked at where nothing says what they are.
_SCANS = 12
# T1w, T1ce and the like, too.
_MR_NAMES = re.compile(
    r"(?<![a-z0-9])(t[12](?!\d)|(mri?|pdw?|flair|dwi|adc|swi|dce)(?![a-z]))", re.IGNORECASE
)


def modality_of_datasets(datasets: Sequence[str], given: str | None) -> str:
    """The one modality of the data sets, which is logged with how it is known.

    Args:
        datasets: raw data sets by number or name.
        given: modality that the user has stated.

    Raises:
        ScreenerError: they are of several ones, or not of the one that was stated.
    """
    found = {dataset_name(d): _modality_of(raw_folder(d), given) for d in datasets}
    kinds = {kind for kind, _ in found.values()}
    if len(kinds) > 1:
        lists = "; ".join(
            f"{MODALITIES[kind].title}: {some(d for d, (k, _) in found.items() if k == kind)}"
            for kind in sorted(kinds)
        )
        raise ScreenerError(f"one plan is made for one modality, and there are {lists}: plan each")
    (modality,) = kinds
    for dataset, (_, why) in found.items():
        logger.info("%s: modality %s, %s", dataset, modality, why)
    return modality


def _modality_of(folder: Path, given: str | None) -> tuple[str, str]:
    """Modality of a raw data set, and how it is known."""
    values = read_description(folder)
    pictures = is_picture(values["file_ending"])
    if given is not None:
        if (given == PICTURE) != pictures:
            kind = "pictures" if pictures else "volumes"
            raise ScreenerError(
                f"{folder} holds {kind} ({values['file_ending']}), which --modality {given} does "
                "not fit: leave it out"
            )
        return given, "as stated"
    if pictures:
        return PICTURE, f"for its files end in {values['file_ending']}"
    named = _named(values)
    if named is not None and named[0] == PICTURE:
        raise ScreenerError(
            f"the dataset.json of {folder} states pictures, but its files end in "
            f"{values['file_ending']}: correct one of both"
        )
    if named is not None:
        return named
    return _by_values(find_cases(folder))


def _named(values: Mapping[str, Any]) -> tuple[str, str] | None:
    stated = str(values.get("modality")).strip().lower()
    if stated in MODALITIES:
        return stated, "as its dataset.json states"
    name = next(iter(values["channel_names"].values()), "")
    if str(name).strip().lower() == "ct":
        return CT, "as its dataset.json names the channel"
    if _MR_NAMES.search(str(name)):
        return MR, f"as its dataset.json names the channel {name}"
    return None


def _by_values(cases: Mapping[str, Path]) -> tuple[str, str]:
    """By whether the values of some scans can be Hounsfield units."""
    ct, others = [], []
    for case in spread(sorted(cases), _SCANS):
        try:
            array = read_array(cases[case], case)
        except CaseError:
            continue  # reported when it is analysed
        try:
            check_intensities(array, case)
            ct.append(case)
        except CaseError:
            others.append(case)
    if ct and others:
        raise ScreenerError(
            f"the values of some scans are HU ({some(ct)}), and those of others are not "
            f"({some(others)}): make a data set of each modality, or state it with --modality"
        )
    if others:
        return MR, f"for the values of {len(others)} scans cannot be HU"
    return CT, f"for the values of {len(ct)} scans can be HU"
