"""DICOM Segmentation and Parametric Map that refer to the CT series a map was made of."""

from screener_nnu.dicom_output.parametric_map import write_parametric_map
from screener_nnu.dicom_output.segmentation import write_dicom_seg

__all__ = ["write_dicom_seg", "write_parametric_map"]
