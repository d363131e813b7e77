"""Differential privacy of a task: accounting, calibration, and what the numbers assume.

Uses config/ and base/. What the aggregators do in a graph is learning/'s; what a run has spent is simulation/'s to ask here.
"""

from odp_taskbuilder.privacy.budget import PrivacyBudget, budget_of, mechanism_of, privacy_budget, problems_of, smallest_noise
from odp_taskbuilder.privacy.curve import CurveVariable, PrivacyCurve, curve_point, curve_values, empty_curve, epsilon_curve

__all__ = [
    "CurveVariable",
    "PrivacyBudget",
    "PrivacyCurve",
    "budget_of",
    "curve_point",
    "curve_values",
    "empty_curve",
    "epsilon_curve",
    "mechanism_of",
    "privacy_budget",
    "problems_of",
    "smallest_noise",
]
