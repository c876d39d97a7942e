"""Files that are almost what they should be, as many as are wanted."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

Change = Callable[[bytearray, random.Random], bytes]

_ODD_NUMBERS = (0, -1, 1, 2, 3, 30000, -32768, 32767)
_ODD_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e-30, 1e30, -3.5)


def cut(content: bytearray, draw: random.Random) -> bytes:
    """Its beginning alone."""
    return bytes(content[: draw.randrange(len(content))])


def flipped(content: bytearray, draw: random.Random) -> bytes:
    """Some bits turned, most of them in the header."""
    for _ in range(draw.randint(1, 20)):
        reach = len(content) if draw.random() < 0.3 else min(400, len(content))
        content[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(content)


def zeroed(content: bytearray, draw: random.Random) -> bytes:
    """A stretch of zeros, as a broken disk gives."""
    start = draw.randrange(len(content))
    stop = min(len(content), start + draw.randint(1, 4096))
    content[start:stop] = bytes(stop - start)
    return bytes(content)


def doubled(content: bytearray, draw: random.Random) -> bytes:
    """A part of it twice."""
    start, stop = sorted(draw.randrange(len(content)) for _ in range(2))
    return bytes(content[:stop] + content[start:])


def lengthened(content: bytearray, draw: random.Random) -> bytes:
    """Something behind its end."""
    return bytes(content) + draw.randbytes(draw.randint(1, 5000))


def noise(content: bytearray, draw: random.Random) -> bytes:
    """Nothing but noise, or nothing."""
    return draw.randbytes(draw.choice([0, 1, 100, 5000]))


ANY: tuple[Change, ...] = (cut, flipped, zeroed, doubled, lengthened, noise)


def nifti_numbers(content: bytearray, draw: random.Random) -> bytes:
    """Odd numbers in the fields of a NIfTI header: sizes, types, spacings, affines, scaling."""
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.5:
            place = draw.choice([*range(40, 56, 2), 70, 72, 252, 254])  # dim, datatype, codes
            struct.pack_into("<h", content, place, draw.choice(_ODD_NUMBERS))
        else:
            place = draw.choice([*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)])
            struct.pack_into("<f", content, place, draw.choice(_ODD_FLOATS))
    return bytes(content)


def text_numbers(content: bytearray, draw: random.Random) -> bytes:
    """Odd words in the header of an MHA or NRRD file."""
    head, end, rest = bytes(content).partition(b"\n\n")
    lines = head.split(b"\n")
    line = draw.randrange(len(lines))
    words = lines[line].split(b" ")
    odd = [b"0", b"-1", b"nan", b"", b"999999999", b"none", b"(1,0,0)", b"\xff\xfe"]
    words[draw.randrange(len(words))] = draw.choice(odd)
    lines[line] = b" ".join(words)
    if draw.random() < 0.3:
        del lines[draw.randrange(len(lines))]
    return b"\n".join(lines) + end + rest


def volumes(folder: Path, source: Path, number: int, draw: random.Random) -> list[str]:
    """Writes changed copies of a NIfTI scan as `bad_<i>_0000.nii.gz`, and as MHA and NRRD.

    Returns:
        Names of the cases.
    """
    image = sitk.ReadImage(str(source))
    plain = gzip.decompress(source.read_bytes())
    others = {}
    for ending in (".mha", ".nrrd"):
        path = folder / f".source{ending}"
        sitk.WriteImage(image, str(path))
        others[ending] = path.read_bytes()
        path.unlink()
    names = []
    for index in range(number):
        name, kind = f"bad_{index:03d}", draw.random()
        if kind < 0.6:
            change = draw.choice([*ANY, nifti_numbers, nifti_numbers, nifti_numbers])
            content = gzip.compress(change(bytearray(plain), draw), 1)
            ending = ".nii.gz"
        elif kind < 0.75:  # the compressed stream itself
            content, ending = draw.choice(ANY)(bytearray(source.read_bytes()), draw), ".nii.gz"
        else:
            ending = draw.choice(list(others))
            change = draw.choice([*ANY, text_numbers, text_numbers])
            content = change(bytearray(others[ending]), draw)
        (folder / f"{name}_0000{ending}").write_bytes(content)
        names.append(name)
    return names


def pictures(folder: Path, number: int, draw: random.Random) -> list[str]:
    """Writes changed copies of pictures of all kinds that are read, as `bad_<i>.png` and so on."""
    from PIL import Image

    grey = np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)
    made = {}
    for ending, kind in ((".png", "PNG"), (".jpg", "JPEG"), (".bmp", "BMP"), (".tif", "TIFF")):
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, kind)
        made[ending] = stream.getvalue()
    names = []
    for index in range(number):
        ending = draw.choice(list(made))
        content = draw.choice(ANY)(bytearray(made[ending]), draw)
        (folder / f"bad_{index:03d}{ending}").write_bytes(content)
        names.append(f"bad_{index:03d}")
    return names


def series(folder: Path, number: int, draw: random.Random, write: Callable[..., list[Path]]) -> int:
    """Writes DICOM series, each with some fault in one or all of its slices."""
    from pydicom.dataset import Dataset

    tags = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"]
    tags += ["RescaleSlope", "RescaleIntercept", "BitsAllocated", "BitsStored", "PixelData"]
    tags += ["SeriesInstanceUID", "SliceThickness", "PhotometricInterpretation"]
    tags += ["SamplesPerPixel", "InstanceNumber", "ImageType", "PixelRepresentation"]

    def spoil(one: Dataset) -> None:
        tag = draw.choice(tags)
        if draw.random() < 0.5 and tag != "BitsAllocated":  # pydicom could not write
            delattr(one, tag)
        elif tag == "PixelData":
            one.PixelData = one.PixelData[: 2 * draw.randrange(len(one.PixelData) // 2)]
        elif isinstance(getattr(one, tag), int):
            setattr(one, tag, abs(draw.choice(_ODD_NUMBERS)))
        elif tag in ("ImagePositionPatient", "PixelSpacing", "ImageOrientationPatient"):
            setattr(one, tag, [draw.choice(["0", "1e9", "-4"]) for _ in getattr(one, tag)])
        elif tag in ("RescaleSlope", "RescaleIntercept", "SliceThickness"):
            setattr(one, tag, draw.choice(["0", "1e30", "-7"]))
        else:
            setattr(one, tag, draw.choice(["1.2.3", "X"]))

    rng = np.random.default_rng(1)
    for index in range(number):
        whole, one_slice = draw.random() < 0.5, draw.randrange(24)

        def change(one: Dataset, slice_: int, whole: bool = whole, at: int = one_slice) -> None:
            if whole or slice_ == at:
                spoil(one)

        place = folder / f"bad{index:03d}"
        files = write(
            place, rng.integers(-900, 900, (24, 40, 36)), uid=f"1.2.99.{index}", change=change
        )
        if draw.random() < 0.3:
            damaged = draw.choice(files)
            damaged.write_bytes(draw.choice(ANY)(bytearray(damaged.read_bytes()), draw))
    return number


def json_variants(values: dict[str, object], number: int, draw: random.Random) -> Sequence[bytes]:
    """A `dataset.json` with something missing, of another type, or torn."""
    odd: list[object] = [None, 0, -1, [], {}, "", "x", {"0": None}, [1], True, 1e400]
    made = []
    for _ in range(number):
        changed = dict(values)
        key = draw.choice(list(changed))
        if draw.random() < 0.3:
            del changed[key]
        else:
            changed[key] = draw.choice(odd)
        text = json.dumps(changed).encode()
        made.append(draw.choice(ANY)(bytearray(text), draw) if draw.random() < 0.3 else text)
    return made
