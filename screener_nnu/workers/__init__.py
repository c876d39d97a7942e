"""Work on many cases through one door: processes of this machine, or any executor elsewhere."""

from screener_nnu.workers.cases import part_of, run_cases

__all__ = ["part_of", "run_cases"]
