"""`screener_preview_medmix`: what image-level pre-training will be shown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from screener_nnu.commands._run import run, user_path
from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    import torch

    from screener_nnu.plans import Plan

_FEWEST = 2
# Of another change than the plan's.
_CLASSES = 4


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write a sheet of the images that image-level pre-training learns to tell "
        "apart: training cases of a plan with 0, 1, 2, ... pasted patches, outlined, and a weak "
        "view of each. See there whether patches look like lesions of your images, and change "
        "pretext.medmix and pretext.views of the plan if not."
    )
    parser.add_argument("-d", dest="dataset", required=True, help="planned data set")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument(
        "-o", dest="output", type=user_path, required=True, help="the sheet, a .png"
    )
    parser.add_argument("--cases", type=int, default=6, help="training cases (6)")
    parser.add_argument(
        "--shift", metavar="NAME", help="another change of images than that of the plan's method"
    )
    parser.add_argument("--seed", type=int, help="other patches and views (that of the plan)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _preview(arguments))


def _preview(arguments: argparse.Namespace) -> None:
    from screener_nnu.ownership import own_folder

    if arguments.output.suffix.lower() != ".png":
        raise ScreenerError(f"-o {arguments.output}: a sheet ends in .png")
    if arguments.cases < _FEWEST:
        raise ScreenerError(
            f"--cases {arguments.cases}: give {_FEWEST} or more, for patches come from other cases"
        )
    if arguments.seed is not None and arguments.seed < 0:
        raise ScreenerError(f"--seed {arguments.seed}: give 0 or a higher number")
    own_folder(arguments.output.parent).refuse_foreign([arguments.output])
    from screener_nnu.paths import plan_file, set_default_folders
    from screener_nnu.plans import read_plan

    set_default_folders()
    plan = read_plan(plan_file(arguments.dataset, arguments.plans))
    _write(arguments, plan)


def _write(arguments: argparse.Namespace, plan: Plan) -> None:
    from screener_nnu.paths import cases_folder
    from screener_nnu.synthetic.shift_preview import preview_columns, write_sheet
    from screener_nnu.synthetic.shifts import shift_of

    settings = plan.settings
    method = settings.pretext.resolved()
    name, classes = method.shift, method.classes
    if arguments.shift is not None:
        name = arguments.shift
        classes = min(_CLASSES, shift_of(name, 1).most_classes or _CLASSES)
    shift = shift_of(name, classes)
    folder = cases_folder(plan.dataset, settings.data_identifier)
    cases = _cases(plan, folder, arguments.cases)
    images, bodies = _crops(plan, folder, cases)
    seed = settings.seed if arguments.seed is None else arguments.seed
    columns = preview_columns(images, bodies, shift, classes, plan, seed)
    _, height, width = settings.preprocessing.spacing
    title = f"{plan.dataset}, {plan.name}, {settings.pretext.method}: {name}"
    write_sheet(arguments.output, title, cases, columns, height / width)
    print(f"{arguments.output}: {len(cases)} cases in {classes} classes of {name}")
    if shift.of_patches:
        parts = (f"{float((c.masks > 0).float().mean()):.0%}" for c in columns[2::2])
        print(f"patches cover {', '.join(parts)} of an image")


def _crops(plan: Plan, folder: Path, cases: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """An image (B, C, D, H, W) of each case, as training reads it, and bodies (B, D, H, W)."""
    import torch

    from screener_nnu.trainers.image_reading import image_reader, on_grid

    size = plan.settings.pretext.image_size(plan.settings.crop_size)
    samples = [
        image_reader(plan, folder, [case], "preview", size)[number]
        for number, case in enumerate(cases)
    ]
    images, bodies = on_grid(samples, size, torch.device("cpu"))
    return images, bodies[:, 0]


def _cases(plan: Plan, folder: Path, most: int) -> list[str]:
    """Training cases, spread evenly over the list.

    Raises:
        ScreenerError: the plan has fewer than two, or one of them is not prepared.
    """
    from screener_nnu.sampling.spread import spread

    cases = spread(plan.settings.split.presumed_normal, most)
    if len(cases) < _FEWEST:
        raise ScreenerError(
            f"{plan.name} names {len(cases)} training cases, and patches come from other ones: "
            "plan with more scans"
        )
    missing = [case for case in cases if not (folder / f"{case}.json").is_file()]
    if missing:
        raise ScreenerError(
            f"{missing[0]} of {plan.name} is not preprocessed: run screener_plan_and_preprocess "
            "with the same arguments again"
        )
    return cases
