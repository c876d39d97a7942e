"""`screener_ext_trainers`: the folder through which stock nnU-Net finds our trainers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.paths import trainers_shim_folder


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the folder."""
    parser = argparse.ArgumentParser(
        description="Print the folder for nnUNet_extTrainer, so that nnUNetv2_train finds our "
        "trainers: export nnUNet_extTrainer=$(screener_ext_trainers)"
    )
    parser.parse_args(argv)
    print(trainers_shim_folder())
