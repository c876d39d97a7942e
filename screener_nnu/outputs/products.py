"""What may be made of a scan and its map beside the map: the command line is built from this."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.viewer.index import page_name

FINDINGS, OVERLAY = "findings", "overlay"
#: Of the overlays of a folder, see `outputs.contact_sheet`.
CONTACT_SHEET = "contact_sheet.png"


@dataclass(frozen=True)
class Product:
    """What `screener_predict --<name>` makes of each map.

    Attributes:
        help: of the flag.
        make: function `module:name` that takes a `MappedCase`, writes the files, and gives what
            the record of the case keeps of them under the name, None for nothing.
        endings: of its files, `<case><ending>`, as they are of scans.
        bytes_per_voxel: memory that it takes to make it, measured.
        settings: of the `OutputRequest`, those that its files depend on.
        shows_findings: endings of its files that show the findings, where they are listed.
        only: kind of images that it can be made of; None for all.
        refusal: what is said where it is asked for of the other kind.
    """

    help: str
    make: str
    endings: tuple[str, ...]
    bytes_per_voxel: int
    settings: tuple[str, ...] = ()
    shows_findings: tuple[str, ...] = ()
    only: MapKind | None = None
    refusal: str = ""


#: What may be asked for, by the name of its flag; what shows findings comes behind them.
PRODUCTS: dict[str, Product] = {
    FINDINGS: Product(
        "list the places above it",
        "screener_nnu.outputs.makers:list_findings",
        ("_findings.json", "_findings.csv", "_findings.nii.gz"),
        5,
        ("threshold", "minimum_ml", "limit"),
    ),
    "dicom": Product(
        "DICOM objects of DICOM scans",
        "screener_nnu.outputs.makers:make_dicom",
        ("_findings.dcm", "_map.dcm"),
        5,
        shows_findings=("_findings.dcm",),
        only=SCANS,
        refusal="DICOM objects have to refer to a DICOM series, and pictures are none",
    ),
    "page": Product(
        "a page to look at, of each scan",
        "screener_nnu.outputs.makers:make_page",
        (".png", ".html"),
        26,
        ("threshold",),
        shows_findings=(".png", ".html"),
    ),
    OVERLAY: Product(
        "each picture with its map over it, and a sheet of the highest and lowest",
        "screener_nnu.outputs.overlay:make_overlay",
        ("_overlay.png",),
        40,
        ("threshold",),
        shows_findings=("_overlay.png",),
        only=PICTURES,
        refusal="maps are drawn over pictures, and these are scans: --page shows them",
    ),
}


def product_file(folder: Path, case: str, ending: str) -> Path:
    """The file `<case><ending>` of a product."""
    return folder / (page_name(case) if ending == ".html" else f"{case}{ending}")


def product_endings(kind: MapKind = SCANS) -> list[str]:
    """Of the files of all products that can be made of a kind of images."""
    made = (product for product in PRODUCTS.values() if product.only in (None, kind))
    return [kind.ending(ending) for product in made for ending in product.endings]
