"""Where the body of an image is, by its modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.modality import MODALITIES, PICTURE

SPACING = (999.0, 1.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 40, 50), (3, 1, 40, 50)])
def test_below_zero_all_of_a_picture_is_body(shape: tuple[int, ...]) -> None:
    picture = np.zeros(shape, np.float32)
    picture[..., 10:30, 15:35] = 200
    settings = PreprocessingSettings(
        spacing=SPACING, storage_spacing=SPACING, hu_clip=(0, 255), hu_window=(0, 255)
    )
    kind = MODALITIES[PICTURE]
    for threshold, share in ((-1.0, 1.0), (0.06, 0.2)):
        given = replace(settings, body_threshold=threshold)
        box = kind.box(picture, SPACING, given)
        body = kind.body(picture, SPACING, (0.0, 255.0), threshold)
        whole = (slice(0, 1), slice(0, 40), slice(0, 50))
        assert (box == whole) == (threshold < 0)
        assert body.shape == (1, 40, 50) and body.mean() == pytest.approx(share)
