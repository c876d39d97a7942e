"""How maps, masks and numbered findings lie on disk: those of scans, and those of pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MapKind:
    """Endings of what is predicted of one kind of image.

    Attributes:
        noun: what one image is called.
        map: ending of an anomaly map.
        labels: ending of body masks, masks and numbered findings.
    """

    noun: str
    map: str
    labels: str

    @property
    def other(self) -> MapKind:
        """The kind that never lies in the same folder."""
        return PICTURES if self == SCANS else SCANS

    def ending(self, of_scans: str) -> str:
        """The ending of a file of labels, from that which it has for scans.

        >>> PICTURES.ending("_findings.nii.gz"), PICTURES.ending("_findings.csv")
        ('_findings.png', '_findings.csv')
        """
        if not of_scans.endswith(SCANS.labels):
            return of_scans
        return of_scans.removesuffix(SCANS.labels) + self.labels


#: Ends of the names of files of labels beside a map: `<case>_body.nii.gz`.
LABEL_NAMES = ("_body", "_mask", "_findings")
SCANS = MapKind("scan", ".nii.gz", ".nii.gz")
#: Maps are float32; labels are 0 and 1 in masks, which looks black, and numbers of findings.
PICTURES = MapKind("picture", ".tif", ".png")
