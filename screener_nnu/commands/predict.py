"""`screener_predict`: anomaly maps of scans and of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from screener_nnu.commands._cluster import add_cluster_options, add_part_options, cluster_of
from screener_nnu.commands._detector import add_model_options, chosen_model
from screener_nnu.commands._run import run, user_path
from screener_nnu.commands._vectors import add_vector_options, vector_request
from screener_nnu.least_volume import MINIMUM_ML, MINIMUM_PX, PIXEL_ML
from screener_nnu.outputs.products import CONTACT_SHEET, FINDINGS, OVERLAY, PRODUCTS

if TYPE_CHECKING:
    from screener_nnu.detectors import ModelRef
    from screener_nnu.map_kind import MapKind
    from screener_nnu.outputs.extras import CaseExtras
    from screener_nnu.outputs.request import OutputRequest

_COST_OF_FAST = (
    "--fast: tiles do not overlap. A scan that fits into one tile keeps its map; in larger ones "
    "the AUROC on synthetic anomalies fell by up to 0.02 (documentation/prediction_speed.md). "
    "Calibrated thresholds were measured with overlap"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write the anomaly map and the body mask of each scan in its own geometry, or "
        "of each picture in its own size. "
        "The distilled student is used unless another detector is named."
    )
    add_model_options(parser)
    parser.add_argument(
        "-i", dest="input", type=user_path, required=True, help="file, folder or series"
    )
    parser.add_argument("-o", dest="output", type=user_path, required=True)
    parser.add_argument("-chk", dest="checkpoint", type=user_path, help="checkpoint of a student")
    parser.add_argument("--fast", action="store_true", help="tiles side by side, without overlap")
    parser.add_argument(
        "--threshold",
        metavar="T",
        help="also write a mask: a score, or p99.9 (percentile of held-out voxels), fp1 (false "
        "positives a scan), dice, recall0.8",
    )
    for name, product in PRODUCTS.items():
        parser.add_argument(f"--{name}", action="store_true", help=product.help)
        if name == FINDINGS:
            smallest = f"smallest volume of one [{MINIMUM_ML:g}]"
            parser.add_argument("--min_ml", type=float, help=smallest)
            smallest = f"in pictures, smallest area of one [{MINIMUM_PX}]"
            parser.add_argument("--min_px", type=float, help=smallest)
    add_vector_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default=None)
    parser.add_argument("-np", dest="processes", type=int, default=0, help="workers of --cluster")
    add_part_options(parser, "predict")
    add_cluster_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _predict(arguments))


def _predict(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    from screener_nnu.case_score import CASE_TABLE
    from screener_nnu.devices import choose_device
    from screener_nnu.dicom_output.dependency import load_highdicom
    from screener_nnu.inference.elsewhere import Job
    from screener_nnu.inference.images import find_images, kind_of
    from screener_nnu.inference.output_folder import (
        refuse_folder_of_scans,
        refuse_maps_of_other_kind,
    )
    from screener_nnu.inference.predict import Predictor, predict_files
    from screener_nnu.inference.volume import with_overlap
    from screener_nnu.outputs.cohort import score_vectors
    from screener_nnu.outputs.contact_sheet import write_contact_sheet
    from screener_nnu.outputs.extras import CaseExtras, adopt_earlier, known_cases, page_rows
    from screener_nnu.outputs.table import without_map, write_table
    from screener_nnu.ownership import own_folder
    from screener_nnu.viewer.index import INDEX, write_index
    from screener_nnu.workers import part_of
    from screener_nnu.workers.crew import current_crew

    model = chosen_model(arguments, arguments.checkpoint)
    if arguments.dicom:
        load_highdicom()  # to say now that it is missing, not after hours
    whole = find_images(arguments.input)
    images = part_of(whole, arguments.part, arguments.parts)
    device = choose_device(arguments.device)
    loaded = model.load(device)
    vectors = vector_request(arguments)
    vectors.refuse_unfit(loaded.module)
    if arguments.parts > 1:
        vectors.refuse_parts()
    if arguments.fast:
        loaded = loaded._replace(plan=with_overlap(loaded.plan, 0.0))
        print(_COST_OF_FAST)
    kind = kind_of(images)
    request = _request(arguments, model, kind)
    folder = arguments.output
    refuse_folder_of_scans(images, folder)
    refuse_maps_of_other_kind(folder, kind)
    owned = own_folder(folder)
    adopt_earlier(owned)
    sheets = [CASE_TABLE] + [INDEX] * arguments.page + [CONTACT_SHEET] * (OVERLAY in request.asked)
    owned.refuse_foreign([folder / name for name in sheets])
    extras = CaseExtras(folder, request)
    with cluster_of(arguments):
        workers = current_crew() is not None
        skipped = predict_files(
            Predictor.of(loaded, device),
            images,
            folder,
            request.threshold,
            arguments.overwrite,
            extras,
            Job.of(model, arguments.device, arguments.fast) if workers else None,
        )
    mapped = [case for case in images if case not in skipped]
    score_vectors(folder, mapped, loaded.module, vectors)
    every = known_cases(folder, whole)
    lacking = {**without_map(folder, whole.keys() - images.keys(), kind), **skipped}
    table = write_table(folder, every, lacking, kind)
    if arguments.page:
        write_index(folder, page_rows(folder, every), lacking, kind.noun)
    if OVERLAY in request.asked:
        write_contact_sheet(table, images)
    _say(len(images), skipped, extras, table)


def _say(scans: int, skipped: Mapping[str, str], extras: CaseExtras, table: Path) -> None:
    """What there is, and what is not."""
    from screener_nnu.errors import ScreenerError, some

    noun = f"{extras.request.kind.noun}s"
    print(f"{scans - len(skipped)} maps in {table.parent}, {len(skipped)} {noun} skipped")
    if extras.not_dicom:
        print(
            f"no DICOM objects of {some(extras.not_dicom)}: they have to refer to a DICOM series, "
            "and this was none"
        )
    if skipped or extras.failures:
        lacking = f"{len(skipped)} of {scans} {noun} have no map"
        if not skipped:
            lacking = f"{len(extras.failures)} of {scans} {noun} lack something that was asked for"
        raise ScreenerError(f"{lacking}; the reasons stand above and in {table}")


def _minimum_ml(arguments: argparse.Namespace, kind: MapKind) -> float:
    """Smallest volume of a finding, and of pictures `PIXEL_ML` for each pixel of its area."""
    from screener_nnu.errors import ScreenerError
    from screener_nnu.map_kind import SCANS

    volume, area = arguments.min_ml, arguments.min_px
    if kind == SCANS:
        if area is not None:
            raise ScreenerError("--min_px is an area in a picture, and these are scans: --min_ml")
        return MINIMUM_ML if volume is None else volume
    if volume is not None:
        raise ScreenerError("--min_ml is a volume in a scan, and these are pictures: --min_px")
    return PIXEL_ML * (MINIMUM_PX if area is None else area)


def _request(arguments: argparse.Namespace, model: ModelRef, kind: MapKind) -> OutputRequest:
    """What is made of each map, with the threshold as a score."""
    from screener_nnu.calibration.store import (
        load_calibration,
        resolve_threshold,
        trained_identity,
    )
    from screener_nnu.outputs.request import OutputRequest
    from screener_nnu.score_units import behind

    identity, minimum_ml = trained_identity(model), _minimum_ml(arguments, kind)
    threshold = None
    if arguments.threshold is not None:
        threshold = resolve_threshold(arguments.threshold, model, minimum_ml)
        print(f"threshold: {threshold:.4f}{behind(model.spec.unit)}")
    return OutputRequest(
        asked=tuple(name for name in PRODUCTS if getattr(arguments, name)),
        threshold=threshold,
        minimum_ml=minimum_ml,
        calibration=load_calibration(model),
        model_name=model.title,
        model=f"{identity}, fast" if arguments.fast else identity,
        unit=model.spec.unit,
        kind=kind,
    )
