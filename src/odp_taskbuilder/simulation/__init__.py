"""Rounds run from emitted artifacts on client data: sampling, engines, evaluation beside training, run directories.

Uses runtime/, metrics/, data/ and build.py. How one client or one server step executes is runtime/'s.
"""
