"""The task builder service and its client: HTTP, admission, access, builds in sandboxes, what an operator sees.

Uses build.py, push/ and what is below them. What a build does is build.py's; creating tasks elsewhere is push/'s.
"""
