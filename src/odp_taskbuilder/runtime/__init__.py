"""Executes what was emitted, from the files alone: a client plan as a phone does, a server plan in the order in which the server does.

Uses artifacts/ and plan/. Which clients take part, and what is kept of a round, is simulation/'s.
"""
