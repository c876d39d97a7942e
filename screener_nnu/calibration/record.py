"""What a model's scores mean: the record that is kept beside its weights."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from screener_nnu.calibration.annotated import AnnotatedThresholds
from screener_nnu.calibration.false_positives import FalsePositives
from screener_nnu.calibration.percentiles import PercentileMap
from screener_nnu.case_score import case_score
from screener_nnu.errors import ScreenerError
from screener_nnu.least_volume import MINIMUM_ML

VERSION = 1
THRESHOLD_FORMS = "a number of nats, p99.9, fp1, dice or recall0.8"
_NUMBER = r"\d+\.?\d*|\.\d+"
_SPECIAL = re.compile(rf"(p|fp|recall)({_NUMBER})")
_KEYS = {
    "version",
    "model",
    "source",
    "percentiles",
    "case_percentile",
    "case_scores",
    "false_positives",
    "annotated",
}
_MAX_SCANS = 10_000
SOURCES = ("validation scans", "scans of a folder")
"""Where held-out scans come from; nothing else may stand there, least of all a path."""


class CaseScore(NamedTuple):
    """How anomalous a scan is as a whole.

    Attributes:
        value: nats.
        percentile: share (%) of the held-out scans with a lower one; 100 / scans is its step.
    """

    value: float
    percentile: float


@dataclass(frozen=True)
class Calibration:
    """What the scores of one student or teacher mean, by held-out scans; it names none of them.

    Attributes:
        model: hash of the weights that it belongs to, see `store.model_identity`.
        source: where the held-out scans came from, as words.
        percentiles: of the voxels of held-out bodies, each scan weighing the same.
        case_percentile: percentile of a scan's voxels that is its case score.
        case_scores: those of the N held-out scans, rising (nats).
        false_positives: components above thresholds.
        annotated: thresholds from annotated cases, where there were some.
    """

    model: str
    source: str
    percentiles: PercentileMap
    case_percentile: float
    case_scores: tuple[float, ...]
    false_positives: FalsePositives
    annotated: AnnotatedThresholds | None = None

    @property
    def scans(self) -> int:
        """Held-out scans N."""
        return len(self.case_scores)

    @property
    def fingerprint(self) -> str:
        """Hash of the contents, 16 hexadecimal digits; the same before and after a file.

        Two calibrations of the same weights differ in it, unlike in `model`.
        """
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def percentile(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Percentage of held-out body voxels below each score (nats), of any shape."""
        return self.percentiles.percentile(scores)

    def score_at(self, percentile: float) -> float:
        """The score (nats) at a percentile of held-out body voxels."""
        return self.percentiles.score_at(percentile)

    def case_score(self, scores: NDArray[np.floating]) -> CaseScore:
        """The case score of a scan from the scores (nats) of its body's voxels `(n,)`.

        Raises:
            ScreenerError: no voxels, or scores that are no finite numbers.
        """
        value = case_score(scores, self.case_percentile)
        lower = int(np.searchsorted(self.case_scores, value, side="left"))
        return CaseScore(value, 100.0 * lower / self.scans)

    def parse_threshold(self, text: str, volume_ml: float = MINIMUM_ML) -> float:
        """A threshold (nats; voxels above it are positive) from what a user wrote.

        Args:
            text: `12.5` (nats), `p99.9` (percentile of held-out body voxels), `fp1` (false
                positives per scan), `dice` or `recall0.8` (of annotated cases).
            volume_ml: least volume (ml) of the components that `fp` counts.

        Raises:
            ScreenerError: none of these, or more than the held-out scans can tell.
        """
        value = plain_threshold(text)
        if value is not None:
            return value
        if text == "dice":
            return self._annotated(text).dice_threshold
        kind, number = _split(text)
        if kind == "p":
            return self._at_percentile(number)
        if kind == "fp":
            return self.false_positives.threshold_for(number, volume_ml).threshold
        known = self._annotated(text).recall_thresholds
        if not known:
            raise ScreenerError(
                f"threshold '{text}' is not kept: too many annotated voxels score below all "
                "held-out voxels"
            )
        if number not in known:
            raise ScreenerError(f"thresholds are kept for a recall of {_listed(known)}: take one")
        return known[number]

    def _at_percentile(self, number: float) -> float:
        if number > 100:
            raise ScreenerError(f"p{number:g}: a percentile is between 0 and 100")
        return self.score_at(number)

    def _annotated(self, text: str) -> AnnotatedThresholds:
        if self.annotated is None:
            raise ScreenerError(
                f"threshold '{text}' needs annotated cases, and this calibration saw none: run "
                "screener_calibrate with --images and --masks"
            )
        return self.annotated

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "version": VERSION,
            "model": self.model,
            "source": self.source,
            "percentiles": self.percentiles.to_dict(),
            "case_percentile": self.case_percentile,
            "case_scores": list(self.case_scores),
            "false_positives": self.false_positives.to_dict(),
            "annotated": None if self.annotated is None else self.annotated.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Any) -> Calibration:
        """Reads what `to_dict` wrote, by whomever.

        Raises:
            ScreenerError: another version, or values that do not fit together.
        """
        version = values.get("version") if isinstance(values, dict) else None
        if version != VERSION:
            raise ScreenerError(
                f"its version is {version!r} and this installation reads {VERSION}: run "
                "screener_calibrate again"
            )
        try:
            return cls._from_known(values)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ScreenerError(
                f"it is damaged ({error!r}): run screener_calibrate again"
            ) from error

    @classmethod
    def _from_known(cls, values: dict[str, Any]) -> Calibration:
        known = set(values) == _KEYS and values["source"] in SOURCES
        if not known or not isinstance(values["model"], str):
            raise ScreenerError(f"its entries are not {', '.join(sorted(_KEYS))}")
        annotated = values["annotated"]
        made = cls(
            values["model"],
            values["source"],
            PercentileMap.from_dict(values["percentiles"]),
            float(values["case_percentile"]),
            tuple(float(value) for value in values["case_scores"]),
            FalsePositives.from_dict(values["false_positives"]),
            None if annotated is None else AnnotatedThresholds.from_dict(annotated),
        )
        scores = np.asarray(made.case_scores)
        whole = made.scans == made.false_positives.scans and 0 < made.scans <= _MAX_SCANS
        if not whole or not np.isfinite(scores).all() or (np.diff(scores) < 0).any():
            raise ScreenerError("its case scores do not fit its scans")
        if not 0 < made.case_percentile <= 100:
            raise ScreenerError("its case score is no percentile")
        return made

    def with_annotated(self, annotated: AnnotatedThresholds) -> Calibration:
        """The same with thresholds of annotated cases."""
        return replace(self, annotated=annotated)


def plain_threshold(text: str) -> float | None:
    """The threshold in nats that needs no calibration; None for `p`, `fp`, `dice`, `recall`.

    Raises:
        ScreenerError: the text is no threshold.
    """
    if text == "dice" or _SPECIAL.fullmatch(text):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ScreenerError(f"'{text}' is no threshold: give {THRESHOLD_FORMS}")
    return value


def _split(text: str) -> tuple[str, float]:
    found = _SPECIAL.fullmatch(text)
    assert found is not None  # plain_threshold has refused everything else
    return found.group(1), float(found.group(2))


def _listed(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)
