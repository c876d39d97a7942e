"""What a detector sees of an image: descriptor maps from networks that others or we trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from screener_nnu.errors import ScreenerError
from screener_nnu.stages import load_object

if TYPE_CHECKING:
    from screener_nnu.descriptors.base import Descriptor
    from screener_nnu.plans import DensitySettings

#: The last layer of the plan's own trained UNet, several layers of it, and those of an encoder that
#: image-level pre-training trained.
DENSE, LEVELS, PRETEXT = "dense", "levels", "pretext"
#: The plan's own with filters made by hand beside it.
WITH_FILTERS = "dense_with_filters"
#: In place of the plan that a network is taken from: its initial weights.
UNTRAINED = "untrained"
#: Class of a descriptor by the name that a plan uses, `module:class`; `dense` has none.
DESCRIPTORS: dict[str, str] = {
    DENSE: "",
    LEVELS: "screener_nnu.descriptors.levels:LevelsDescriptor",
    WITH_FILTERS: "screener_nnu.descriptors.with_filters:DescriptorWithFilters",
    PRETEXT: "screener_nnu.descriptors.pretext:PretextDescriptor",
    "filters": "screener_nnu.descriptors.filters:FilterBank",
    "imagenet": "screener_nnu.descriptors.imagenet:ImageNetSlices",
    "file": "screener_nnu.descriptors.file_network:FileDescriptor",
}
#: Stage that trains the network of a descriptor; the others come from elsewhere.
TRAINED_BY = {
    DENSE: "descriptor",
    LEVELS: "descriptor",
    WITH_FILTERS: "descriptor",
    PRETEXT: "pretext",
}


def descriptor_class(name: str) -> type[Descriptor]:
    """The class of a descriptor other than `dense`.

    Raises:
        ScreenerError: the name is not known.
    """
    if name not in DESCRIPTORS:
        raise ScreenerError(f"there is no descriptor '{name}'; known: {', '.join(DESCRIPTORS)}")
    found: type[Descriptor] = load_object(DESCRIPTORS[name])
    return found


def descriptor_of(density: DensitySettings) -> str:
    """Name of the descriptor that a density has: `dense` gets the filters that two experts need."""
    needs_filters = density.kind == "experts" and density.descriptor == DENSE
    return WITH_FILTERS if needs_filters else density.descriptor
