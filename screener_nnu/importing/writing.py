"""One picture and its mask as files of a raw data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import MEMORY_RAN_OUT, CaseError
from screener_nnu.importing.kinds import is_grey, read_source
from screener_nnu.importing.records import (
    ABNORMAL,
    NORMAL,
    TEST,
    TRAIN,
    UNKNOWN,
    Form,
    PictureRow,
)
from screener_nnu.importing.report import SKIPPED, TAKEN
from screener_nnu.preprocessing.pictures import read_picture, write_picture

ENDING = "_0000.png"
MASK_ENDING = ".png"
IMAGE_FOLDERS = {TRAIN: "imagesTr", TEST: "imagesTs"}
MASK_FOLDER = "labelsTs"
ABNORMAL_IN_TRAINING = (
    "it is abnormal, and training takes normal pictures alone: give it to the test"
)
# Of red, green and blue in what the eye sees as brightness (ITU-R BT.601).
_BRIGHTNESS = (0.299, 0.587, 0.114)


def case_files(row: PictureRow, folder: Path) -> list[Path]:
    """Files that a case has, or may have, in the folder of its data set."""
    image = folder / IMAGE_FOLDERS[row.split] / f"{row.case}{ENDING}"
    return [image, folder / MASK_FOLDER / f"{row.case}{MASK_ENDING}"]


def write_case(
    case: str, row: PictureRow, root: Path, folder: Path, form: Form, masks: bool
) -> PictureRow:
    """Reads a picture and writes its files; the image comes last, so that it ends the case.

    Args:
        case: name of the case.
        row: what is planned.
        root: folder of the sources.
        folder: of the data set.
        form: of the written pictures.
        masks: whether test pictures have masks; normal ones then get an empty one.

    Returns:
        The row of what became of it.

    Raises:
        OutputError: a file cannot be written.
    """
    try:
        picture = read_source(root / row.source, case)
        pixels = in_form(picture.pixels, form, case)
    except CaseError as error:
        return replace(row, status=SKIPPED, reason=error.reason)
    except MemoryError:
        return replace(row, status=SKIPPED, reason=MEMORY_RAN_OUT)
    done = replace(row, status=TAKEN, notes="; ".join(picture.notes))
    done, mask = _judge_mask(done, root, pixels.shape[1:])
    if done.split == TRAIN and done.label == ABNORMAL:
        return replace(done, status=SKIPPED, reason=ABNORMAL_IN_TRAINING)
    image_file, mask_file = case_files(done, folder)
    if masks and done.split == TEST:
        if mask is not None:
            write_picture(mask, mask_file)
        elif not done.reason:
            done = replace(done, reason="it has no mask")
    write_picture(pixels, image_file)
    return done


def in_form(
    pixels: NDArray[np.uint8 | np.uint16], form: Form, case: str
) -> NDArray[np.uint8 | np.uint16]:
    """Pixels (C, H, W) with the channels and bits of a data set.

    Raises:
        CaseError: they have more bits.
    """
    if pixels.itemsize * 8 > form.bits:
        raise CaseError(case, f"it has 16 bits, and the data set has {form.bits}: leave it out")
    if len(pixels) == 3 and form.channels == 1:
        kind = pixels.dtype
        brightness = np.tensordot(_BRIGHTNESS, pixels, 1)[np.newaxis]
        pixels = pixels[:1] if is_grey(pixels) else np.rint(brightness).astype(kind)
    if len(pixels) == 1 and form.channels == 3:
        pixels = np.repeat(pixels, 3, axis=0)
    return pixels.astype(np.uint16 if form.bits == 16 else np.uint8)


def read_mask(
    path: Path, case: str, size: tuple[int, ...]
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """A mask of 0 and 1, (H, W), whatever number or colour stands for 1, and notes on its file.

    Raises:
        CaseError: it cannot be read, has another size, or holds more than 0 and one other value.
    """
    picture = read_picture(path, case, may_be_constant=True)
    pixels = picture.pixels
    if pixels.shape[1:] != size:
        there, here = (f"{shape[1]} x {shape[0]}" for shape in (pixels.shape[1:], size))
        raise CaseError(case, f"the mask {path} has {there} pixels, and the picture {here}")
    # One number a colour.
    colours = np.zeros(size, dtype=np.int64)
    for channel in pixels:
        colours = (colours << 16) | channel
    values = np.unique(colours[colours > 0])
    if len(values) > 1:
        raise CaseError(
            case,
            f"the mask {path} holds {len(values)} values other than 0, but one is allowed (1, or "
            "255): threshold it, and save it as PNG",
        )
    return (colours > 0).astype(np.uint8), picture.notes


def _judge_mask(
    row: PictureRow, root: Path, size: tuple[int, ...]
) -> tuple[PictureRow, NDArray[np.uint8] | None]:
    """The mask to write, if any, and the row with what the mask tells.

    A mask that cannot be used is left out with the reason; the picture goes on.
    """
    if not row.mask:
        empty = np.zeros(size, dtype=np.uint8) if row.label == NORMAL else None
        return row, empty
    try:
        mask, notes = read_mask(root / row.mask, row.case, size)
    except CaseError as error:
        return replace(row, mask="", reason=f"its mask is left out: {error.reason}"), None
    said = [row.notes, *(f"its mask: {note}" for note in notes)]
    row = replace(row, notes="; ".join(filter(None, said)))
    marked = ABNORMAL if mask.any() else NORMAL
    if row.label == UNKNOWN:
        return replace(row, label=marked), mask
    if row.label != marked:
        what = (
            "empty, though its label is 1"
            if marked == NORMAL
            else "not empty, though its label is 0"
        )
        reason = f"its mask is left out: {root / row.mask} is {what}; correct one of the two"
        return replace(row, mask="", reason=reason), None
    return row, mask
