"""How images of class 1, 2, ... are changed, by name; class 0 is the image as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import torch
import torch.nn.functional as F

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import MedMixSettings, ViewSettings
from screener_nnu.synthetic.medmix import medmix, paste_patches
from screener_nnu.synthetic.patch_boxes import Source
from screener_nnu.synthetic.patch_deformations import Probabilities

Changed = tuple[torch.Tensor, torch.Tensor]
# Standard deviation of the noise of class 1; class 2 has twice as much.
_NOISE = 0.1
# Orders of the four quarters of a plane: as they are, then those that leave fewest in their place.
_ORDERS = sorted(
    permutations(range(4)),
    key=lambda order: (order != (0, 1, 2, 3), sum(map(int.__eq__, order, range(4))), order),
)


@dataclass(frozen=True)
class ShiftRequest:
    """What a change of images gets; see `Shift`."""

    images: torch.Tensor
    bodies: torch.Tensor | None
    label: int
    generator: torch.Generator
    settings: MedMixSettings

    def masks(self, value: int) -> torch.Tensor:
        """Masks (B, 1, D, H, W) of one value."""
        shape = (len(self.images), 1, *self.images.shape[2:])
        return torch.full(shape, value, dtype=torch.uint8, device=self.images.device)


@dataclass(frozen=True)
class Shift:
    """One way to make classes of images.

    Attributes:
        change: makes images of a class above 0, and their masks.
        most_classes: class 0 included; None where there is no limit.
        of_patches: whether the class is the number of patches, so that a view can lose some.
        oriented: whether the mirror image of one class may look like another class.
    """

    change: Callable[[ShiftRequest], Changed]
    most_classes: int | None = None
    of_patches: bool = False
    oriented: bool = False

    def views(self, settings: ViewSettings) -> ViewSettings:
        """Weak views that leave the classes as they are: without mirror images where these do not.

        A body that is turned to the left and mirrored looks as if it was turned to the right.
        """
        return replace(settings, flip=0.0) if self.oriented else settings

    def __call__(
        self,
        images: torch.Tensor,
        bodies: torch.Tensor | None,
        label: int,
        generator: torch.Generator,
        settings: MedMixSettings,
    ) -> Changed:
        """Changes a batch of images into ones of a class.

        Args:
            images: (B, C, D, H, W) in [0, 1].
            bodies: masks (B, D, H, W), or None where all is body.
            label: the class.
            generator: on the device of the images.
            settings: of patches.

        Returns:
            Images of the same shape, and masks, uint8 (B, 1, D, H, W): 0 where an image is as it
            was; the number of the patch that a voxel lies in, from 1 on, or 1 everywhere where the
            whole image changes.

        Raises:
            ScreenerError: patches of other images are asked for where there are none, or more than
                fit into an image.
            ValueError: there is no such class.
        """
        if not 0 <= label < (self.most_classes or label + 1):
            raise ValueError(f"no class {label} among {self.most_classes}")
        request = ShiftRequest(images, bodies, label, generator, settings)
        return self.change(request) if label else _unchanged(request)


def shift_of(name: str, classes: int) -> Shift:
    """The shift of a name, for so many classes.

    Raises:
        ScreenerError: no such name, or it has fewer classes.
    """
    if name not in SHIFTS:
        raise ScreenerError(f"no shift '{name}'; known: {', '.join(SHIFTS)}")
    most = SHIFTS[name].most_classes
    if most is not None and classes > most:
        raise ScreenerError(
            f"the shift '{name}' makes at most {most} classes, but {classes} are asked for: set "
            "pretext.options.classes lower, or take another pretext.options.shift"
        )
    return SHIFTS[name]


def _unchanged(of: ShiftRequest) -> Changed:
    return of.images, of.masks(0)


def _medmix(of: ShiftRequest) -> Changed:
    return medmix(of.images, of.label, of.generator, of.settings, of.bodies)


def _cutpaste(of: ShiftRequest) -> Changed:
    """Patches of the same image in other colours: Li et al., CVPR 2021, arXiv 2104.04015."""
    return _pasted(of, Source.OWN, Probabilities(colours=1))


def _cutmix(of: ShiftRequest) -> Changed:
    """The same boxes of other images, as they are: Yun et al., ICCV 2019, arXiv 1905.04899."""
    return _pasted(of, Source.OTHER_SAME_PLACE, Probabilities())


def _pasted(of: ShiftRequest, source: Source, probabilities: Probabilities) -> Changed:
    return paste_patches(
        of.images, of.label, of.generator, of.settings, of.bodies, source, probabilities
    )


def _rotation(of: ShiftRequest) -> Changed:
    """Turns in plane by `label` right angles: Gidaris et al., ICLR 2018, arXiv 1803.07728.

    A plane that is not square is resized to its shape again after one and after three.
    """
    turned = torch.rot90(of.images, of.label, (3, 4))
    if turned.shape != of.images.shape:
        turned = F.interpolate(turned, of.images.shape[2:], mode="trilinear")
    return turned.contiguous(), of.masks(1)


def _permutation(of: ShiftRequest) -> Changed:
    """Puts the quarters of each plane in another order, as CCD does (Tian et al., MICCAI 2021).

    Volumes keep the order of their slices: a class then means the same for volumes and pictures.
    The middle line of an odd number of rows or columns stays.
    """
    height, width = of.images.shape[3:]
    rows, columns = height // 2, width // 2
    places = [
        (..., slice(y, y + rows), slice(x, x + columns))
        for y in (0, height - rows)
        for x in (0, width - columns)
    ]
    permuted = of.images.clone()
    for place, source in zip(places, _ORDERS[of.label], strict=True):
        permuted[place] = of.images[places[source]]
    return permuted, of.masks(1)


def _noise(of: ShiftRequest) -> Changed:
    """Adds normal noise."""
    images = of.images
    noise = torch.randn(images.shape, generator=of.generator, device=images.device)
    return (images + of.label * _NOISE * noise).clamp(0, 1), of.masks(1)


#: Shift by name.
SHIFTS: dict[str, Shift] = {
    "medmix": Shift(_medmix, of_patches=True),
    "cutpaste": Shift(_cutpaste, of_patches=True),
    "cutmix": Shift(_cutmix, of_patches=True),
    "rotation": Shift(_rotation, most_classes=4, oriented=True),
    "permutation": Shift(_permutation, most_classes=len(_ORDERS), oriented=True),
    "noise": Shift(_noise),
    "none": Shift(_unchanged, most_classes=1),
}
