"""Findings: the connected places of an anomaly map above a threshold, as rows and as labels."""

from screener_nnu.findings.find import find_findings
from screener_nnu.findings.finding import Finding, Findings, LeftOut
from screener_nnu.findings.write import write_findings

__all__ = ["Finding", "Findings", "LeftOut", "find_findings", "write_findings"]
