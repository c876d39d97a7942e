"""`screener_ext_trainers`: the folder through which stock nnU-Net finds the stages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def shim_folder() -> Path:
    """Folder for the environment variable `nnUNet_extTrainer`."""
    from importlib.util import find_spec

    spec = find_spec("screener_nnu.trainers.nnunet_shim")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the folder."""
    parser = argparse.ArgumentParser(
        description="Print the folder for nnUNet_extTrainer, so that nnUNetv2_train finds the "
        "stages: export nnUNet_extTrainer=$(screener_ext_trainers)"
    )
    parser.parse_args(argv)
    print(shim_folder())
