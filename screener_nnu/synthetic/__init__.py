"""Computed CT phantoms for demo and tests, and synthetic anomalies for scans without labels."""

from screener_nnu.synthetic.anomalies import add_anomalies
from screener_nnu.synthetic.anomaly_set import synthesize_test_set
from screener_nnu.synthetic.anomaly_settings import BlobSettings
from screener_nnu.synthetic.dataset import write_phantom_dataset, write_phantom_test_set
from screener_nnu.synthetic.phantom import Phantom, generate_phantom
from screener_nnu.synthetic.placement import Placement, place_blobs

__all__ = [
    "BlobSettings",
    "Phantom",
    "Placement",
    "add_anomalies",
    "generate_phantom",
    "place_blobs",
    "synthesize_test_set",
    "write_phantom_dataset",
    "write_phantom_test_set",
]
