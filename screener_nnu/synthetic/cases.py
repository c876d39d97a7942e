"""Synthetic anomalies in preprocessed cases: what training and ablations measure themselves on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from screener_nnu.descriptors.base import EQUALISED, ImageKind
from screener_nnu.errors import CaseError
from screener_nnu.inference.volume import images_of
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.equalise import equalise
from screener_nnu.preprocessing.resampling import resample_mask_to_shape
from screener_nnu.synthetic.alterations import ALTERED_KINDS, ALTERING_VERSION, add_alterations
from screener_nnu.synthetic.anomalies import KINDS, add_anomalies
from screener_nnu.synthetic.painting_scale import PaintingScale, blob_settings, brightness

#: Of how anomalies are painted; raised with every change, so that stored ones are made anew.
PAINTING_VERSION = 2
#: Of images without anomalies, which are read like those with some.
PLAIN_VERSION = 2
#: Families of anomalies: those that training may choose by, and those that it never sees.
PAINTED, ALTERED = "painted", "altered"
#: Kinds of each family.
FAMILIES: dict[str, tuple[str, ...]] = {PAINTED: KINDS, ALTERED: ALTERED_KINDS}
#: What stored anomalies of a family depend on.
VERSIONS = {PAINTED: PAINTING_VERSION, ALTERED: ALTERING_VERSION}


@dataclass(frozen=True)
class AnomalousCase:
    """A case with anomalies of one kind, on the plan's grid, all (D, H, W).

    Images of colour pictures are (3, 1, H, W).

    Attributes:
        hu: HU, or values of another modality, with the anomalies.
        equalised: what descriptor and condition see of it, in [0, 1].
        mask: True in anomalies.
        body: True in the body.
    """

    hu: np.ndarray
    equalised: np.ndarray
    mask: np.ndarray
    body: np.ndarray

    def image(self, kind: ImageKind) -> torch.Tensor:
        """One of the images that descriptors see."""
        return torch.from_numpy(self.equalised if kind == EQUALISED else self.hu)

    @property
    def grey(self) -> np.ndarray:
        """Values (D, H, W), of colours their mean."""
        return brightness(self.hu)


def anomalous_case(
    cases: CaseFolder,
    case: str,
    others: tuple[str, ...],
    kind: str,
    settings: PreprocessingSettings,
    seed: int,
) -> AnomalousCase:
    """Paints anomalies into the HU image of a case and makes the equalised image follow.

    Every draw is a function of seed, case and kind.

    Args:
        cases: folder of the cases.
        case: to paint into.
        others: cases of which one, not this one if possible, gives foreign tissue.
        kind: one of those in `FAMILIES`.
        settings: of the preprocessing.
        seed: of the anomalies.

    Raises:
        CaseError: a case cannot be read, or has no place for an anomaly.
    """
    rng = np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in (case, kind))])
    hu, body = read_hu_and_body(cases, case)
    canvas = PaintingScale.of(hu, settings)
    try:
        if kind in ALTERED_KINDS:
            image, window = canvas.painted(hu), canvas.painted_window
            changed, mask = add_alterations(image, body, canvas.spacing, window, kind, rng)
        else:
            changed, mask = _painted(cases, case, others, kind, settings, rng, (hu, body))
    except ValueError as error:
        raise CaseError(case, f"no anomaly of kind {kind} can be painted: {error}") from error
    values = canvas.values(hu, changed)
    equalised = images_of(cases, case)(EQUALISED).numpy()
    change = equalise(values, settings, canvas.window) - equalise(hu, settings, canvas.window)
    return AnomalousCase(values, followed(equalised, change), mask > 0, body)


def followed(equalised: np.ndarray, change: np.ndarray) -> np.ndarray:
    """An equalised image (D, H, W) or (C, D, H, W) in [0, 1] after a change of its values.

    The stored image was windowed before it was resampled, HU were clipped further out. So HU that
    are equalised again are not the stored image, at edges of air and bone above all. What the
    change does to them is added to the stored one, which stays as it is where nothing changed:
    networks see painted scans as they see all others. Under CLAHE, which is no function of single
    values, this is an approximation (documentation/ablate.md).
    """
    return np.clip(equalised + change, 0.0, 1.0)


def _painted(
    cases: CaseFolder,
    case: str,
    others: tuple[str, ...],
    kind: str,
    settings: PreprocessingSettings,
    rng: np.random.Generator,
    scan: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """What `add_anomalies` makes of a case and a donor."""
    candidates = [name for name in others if name != case] or [case]
    donor = candidates[int(rng.integers(len(candidates)))]
    hu, body = scan
    donor_hu, donor_body = scan if donor == case else read_hu_and_body(cases, donor)
    canvas, of_donor = PaintingScale.of(hu, settings), PaintingScale.of(donor_hu, settings)
    return add_anomalies(
        canvas.painted(hu),
        body,
        canvas.spacing,
        of_donor.painted(donor_hu),
        donor_body,
        of_donor.spacing,
        kind,
        rng,
        blob_settings(settings),
    )


def plain_case(cases: CaseFolder, case: str) -> AnomalousCase:
    """A case without anomalies, which is otherwise made as one with them.

    Raises:
        CaseError: it cannot be read.
    """
    hu, body = read_hu_and_body(cases, case)
    return AnomalousCase(hu, images_of(cases, case)(EQUALISED).numpy(), np.zeros_like(body), body)


def read_hu_and_body(cases: CaseFolder, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and body mask (bool) of a case on the plan's grid, both (D, H, W)."""
    hu = cases.read(case, "hu")
    if hu.dtype == np.float16:  # precise enough to keep, not to compute with
        hu = hu.astype(np.float32)
    body = cases.read(case, "body")
    shape = cases.shape(case, "hu")
    if body.shape != shape:
        body = resample_mask_to_shape(body, shape)
    return hu, body > 0
