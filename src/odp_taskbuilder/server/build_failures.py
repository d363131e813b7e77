"""How a build may fail, in the words and error types of the task builder's responses (spec: http_api.md, section 1.1)."""

from __future__ import annotations

from typing import Any, Optional

from odp_taskbuilder import errors
from odp_taskbuilder.base import plain_text, redaction
from odp_taskbuilder.proto import task_builder_pb2

# The stages of a build in which the model is at fault, not what is built from it.
READING_STAGES = ("scanning the model", "loading the model")

# A config may have a thousand faults, and a value in it may be as long as a request.
_MAX_TEXT = 20_000
_MAX_URI = 300

_INVALID_REQUEST = task_builder_pb2.ErrorType.INVALID_REQUEST
_TASK_MANAGEMENT_ERROR = task_builder_pb2.ErrorType.TASK_MANAGEMENT_ERROR
_ARTIFACT_BUILDING_ERROR = task_builder_pb2.ErrorType.ARTIFACT_BUILDING_ERROR


class BuildFailed(Exception):
    """A build that ends with an error_info."""

    def __init__(self, error_type: Any, text: str, report: Optional[task_builder_pb2.TaskReport] = None):
        super().__init__(text)
        self.error_type = error_type
        self.text = text
        self.report = report

    def response(self) -> task_builder_pb2.BuildTaskResponse:
        text = plain_text.shortened(redaction.redact(self.text), _MAX_TEXT)
        info = task_builder_pb2.ErrorInfo(error_type=self.error_type, error_message=text)
        return task_builder_pb2.BuildTaskResponse(error_info=info, task_report=self.report)


def of_config(error: errors.ConfigError) -> BuildFailed:
    text = "\n".join(problem.message for problem in error.problems)
    return BuildFailed(_INVALID_REQUEST, f"Task config is invalid: {text}")


def of_access(error: errors.StorageError) -> BuildFailed:
    return BuildFailed(_INVALID_REQUEST, str(error))


def of_location(error: errors.OdpTaskError) -> BuildFailed:
    return BuildFailed(_TASK_MANAGEMENT_ERROR, error.message)


def of_model(uri: str, error: errors.OdpTaskError) -> BuildFailed:
    if isinstance(error, errors.UntrustedModelError):
        # Its next step is for those who can give options to a build of their own.
        next_step = "Save the model without these parts: this server loads no other."
        error = errors.UntrustedModelError(error.message, next_step=next_step)
    return BuildFailed(_INVALID_REQUEST, f"Cannot load TFF functional model from {plain_text.shortened(redaction.redact_url(uri), _MAX_URI)}. {error}")


def of_building(text: str) -> BuildFailed:
    return BuildFailed(
        _ARTIFACT_BUILDING_ERROR, f"Artifact building failed for task 0: {text.rstrip('.')}. Stop building remaining artifacts."
    )


def of_task_creation(error: errors.OdpTaskError) -> BuildFailed:
    prefix = "Failed to create tasks by task management service: "
    return BuildFailed(_TASK_MANAGEMENT_ERROR, f"{prefix}{error.message.removeprefix(prefix)}")


def of_upload(task_id: int, error: errors.OdpTaskError) -> BuildFailed:
    text = error.message.rstrip(".")
    return BuildFailed(
        _ARTIFACT_BUILDING_ERROR, f"Artifact failed to upload for task {task_id}: {text}. Stop building remaining artifacts."
    )


def of_build(error: errors.OdpTaskError, stage: str, uri: str) -> BuildFailed:
    """What went wrong inside the build, by what and where."""
    if isinstance(error, errors.ConfigError):
        return of_config(error)
    if isinstance(error, errors.PrivacyBudgetError):
        return BuildFailed(_INVALID_REQUEST, f"Task config is invalid: {error}")
    if isinstance(error, errors.ModelError):
        if isinstance(error, errors.UntrustedModelError) or stage in READING_STAGES:
            return of_model(uri, error)
        return BuildFailed(_INVALID_REQUEST, f"Failed to build learning algorithm based on `learning_process` config: {error}")
    if isinstance(error, errors.UnsupportedOpsError):
        return of_building(f"Cannot build the ClientOnlyPlan: {error}")
    return of_building(str(error))
