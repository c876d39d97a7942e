"""Prediction by workers that each load the model: see `workers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

from screener_nnu.detectors import ModelRef
from screener_nnu.devices import choose_device
from screener_nnu.files import file_sha256
from screener_nnu.inference.map_folder import MapFolder
from screener_nnu.inference.pipeline import Outcome, attempt
from screener_nnu.inference.steps import Steps
from screener_nnu.inference.volume import with_overlap
from screener_nnu.outputs.extras import CaseExtras
from screener_nnu.preprocessing.reading import Source
from screener_nnu.workers import run_cases

if TYPE_CHECKING:
    from screener_nnu.inference.predict import Predictor
    from screener_nnu.outputs.request import OutputRequest


@dataclass(frozen=True)
class Job:
    """What a worker needs to know to predict a scan as this process would.

    Attributes:
        model: which it loads once.
        device: that was asked for; by default what the worker has.
        fast: whether tiles lie side by side.
        trained: state of the model's file, so that a worker which outlives this command does not
            take an earlier training for this one.
    """

    model: ModelRef
    device: str | None = None
    fast: bool = False
    trained: str = ""

    @classmethod
    def of(cls, model: ModelRef, device: str | None = None, fast: bool = False) -> Job:
        """The job of a model as it is now."""
        return cls(model, device, fast, file_sha256(model.file))

    def run(self, steps: Steps, wanted: Mapping[str, Source]) -> Iterator[Outcome]:
        """Hands scans to the crew, and tells of each as soon as it is done with.

        Raises:
            OutputError: a file cannot be written, as no other could be.
            ScreenerError: a worker cannot load the model, or all workers are gone.
        """
        maps, extras = steps.maps, steps.maps.extras
        work = partial(
            _predict_case, job=self, maps=MapFolder(maps.folder, maps.threshold, None, maps.kind)
        )
        if extras is not None:
            work = partial(work, request=extras.request)
        items = {case: (source, case in steps.there) for case, source in wanted.items()}
        for case, done in run_cases(work, items, 1, lambda reason: _Done(reason)):
            if extras is not None:
                extras.not_dicom += [case] * done.not_dicom
                extras.failures |= {case: done.failure} if done.failure else {}
            if done.body_share is not None:
                steps.body_shares[case] = done.body_share
            yield Outcome(case, done.reason)


class _Done(NamedTuple):
    """What became of a scan, for the process that asked."""

    reason: str = ""
    body_share: float | None = None
    failure: str = ""
    not_dicom: bool = False


@lru_cache(maxsize=1)
def predictor_of(job: Job) -> Predictor:
    """The model of a job, which is loaded once."""
    from screener_nnu.inference.predict import Predictor

    device = choose_device(job.device)
    loaded = job.model.load(device)
    if job.fast:
        loaded = loaded._replace(plan=with_overlap(loaded.plan, 0.0))
    return Predictor.of(loaded, device)


def _predict_case(
    case: str,
    item: tuple[Source, bool],
    job: Job,
    maps: MapFolder,
    request: OutputRequest | None = None,
) -> _Done:
    """All of one scan, in a worker."""
    source, is_there = item
    extras = None if request is None else CaseExtras(maps.folder, request)
    own = MapFolder(maps.folder, maps.threshold, extras, maps.kind)
    steps = Steps(predictor_of(job), own, {case} if is_there else ())
    _, reason = attempt(partial(steps.all_of, {case: source}))
    share = steps.body_shares.get(case)
    if extras is None:
        return _Done(reason, share)
    return _Done(reason, share, extras.failures.get(case, ""), case in extras.not_dicom)
