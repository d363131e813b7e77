"""The scan under the name that it had before it got a room of its own (odp_taskbuilder.scan), for programs that import it from here."""

from odp_taskbuilder.scan import Finding, ScanLimits, ScanReport, require_safe, scan_model

__all__ = ["Finding", "ScanLimits", "ScanReport", "require_safe", "scan_model"]
