"""Dense self-supervised objectives on pairs of sampled voxel vectors."""

from screener_nnu.losses.infonce import DenseInfoNCE
from screener_nnu.losses.vicreg import DenseVICReg

#: Objective by the name that a plan uses.
LOSSES: dict[str, type[DenseVICReg] | type[DenseInfoNCE]] = {
    "vicreg": DenseVICReg,
    "infonce": DenseInfoNCE,
}

__all__ = ["LOSSES", "DenseInfoNCE", "DenseVICReg"]
