"""Sizes beyond which a server refuses what a build makes: it reads an artifact into one byte array, and restores no larger tensor."""

MAX_ARTIFACT_BYTES = (1 << 31) - 1
MAX_TENSOR_BYTES = 500 << 20
