"""From a TFF process to a Plan: the two server forms, the client graph and its flatbuffer, the initial checkpoint.

Uses learning/ and what is below it. Files, manifests and reading plans back are artifacts/'s; executing them is runtime/'s.
"""
