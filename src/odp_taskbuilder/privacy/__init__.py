"""Differential privacy of a task: accounting, calibration, and what the numbers assume."""

from odp_taskbuilder.privacy.budget import PrivacyBudget, budget_of, mechanism_of, privacy_budget, problems_of, smallest_noise
from odp_taskbuilder.privacy.curve import CurveVariable, PrivacyCurve, epsilon_curve

__all__ = [
    "CurveVariable",
    "PrivacyBudget",
    "PrivacyCurve",
    "budget_of",
    "epsilon_curve",
    "mechanism_of",
    "privacy_budget",
    "problems_of",
    "smallest_noise",
]
