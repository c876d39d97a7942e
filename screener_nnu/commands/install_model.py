"""`screener_install_model`: a model of another machine, ready for prediction and fine-tuning."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run, user_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_install_model",
        description="Check a file of screener_export_model and put it among nnU-Net's folders. "
        "Nothing is written unless everything in it is as it should be; no code of it is run.",
    )
    parser.add_argument("file", type=user_path, metavar="FILE.zip")
    parser.add_argument("--number", type=int, help="of the data set, if not the file's own")
    parser.add_argument(
        "--overwrite", action="store_true", help="move a data set of that number aside"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _install(arguments))


def _install(arguments: argparse.Namespace) -> None:
    from screener_nnu.detectors import ModelRef
    from screener_nnu.files import refuse_missing
    from screener_nnu.paths import results_folder, set_default_folders

    refuse_missing(arguments.file)
    set_default_folders()
    from screener_nnu.sharing.install import install_model
    from screener_nnu.sharing.manifest import CARD

    model = install_model(arguments.file, arguments.number, arguments.overwrite)
    if not model.fresh:
        print(f"{model.dataset} was installed from this file before: nothing to do")
        return
    for place in model.replaced:
        print(f"what was there is now {place}; delete it when you are sure")
    print(f"{model.dataset}: {', '.join(file.stage for file in model.manifest.stages)}")
    print(f"sha256 {model.sha256}")
    print(f"card: {results_folder(model.dataset) / CARD}")
    detector = ModelRef(model.dataset, model.manifest.plans_name, model.manifest.detector)
    print(f"next: {detector.command('predict')} -i SCANS -o MAPS")
