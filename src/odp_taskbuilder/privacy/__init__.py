"""Differential privacy of a task: accounting, calibration, and what the numbers assume."""

from odp_taskbuilder.privacy.budget import PrivacyBudget, mechanism_of, privacy_budget, smallest_noise

__all__ = ["PrivacyBudget", "mechanism_of", "privacy_budget", "smallest_noise"]
