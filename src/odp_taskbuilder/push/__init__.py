"""Brings built artifacts to a task management server and to buckets: creates tasks, uploads, keeps a journal to resume by.

Uses artifacts/, stores/ and transport/. The service that builds for others, and its client, are server/'s.
"""
