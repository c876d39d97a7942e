"""HU histogram of the bodies of a data set, from its fingerprint.

Like nnU-Net's fingerprint it is of all scans, those that are kept for evaluation among them.
"""

from __future__ import annotations

import json

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.cases import HuHistogram
from screener_nnu.paths import FINGERPRINT_FILE, preprocessed_folder


def training_histogram(dataset: int | str) -> HuHistogram:
    """HU histogram of all bodies.

    Raises:
        ScreenerError: the data set was not planned, or by a version without that histogram.
    """
    path = preprocessed_folder(dataset) / FINGERPRINT_FILE
    if not path.is_file():
        raise ScreenerError(f"{path} does not exist; run screener_plan_and_preprocess -d {dataset}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["hu_histogram"]
        edges = np.asarray(stored["edges"], dtype=float)
        counts = np.asarray(stored["counts"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise ScreenerError(f"{path} has no HU histogram; plan the data set again") from error
    return HuHistogram(edges, counts)
