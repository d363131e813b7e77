"""The `odp-task` command: one module per command, each of which parses options, calls one library function and prints its result.

Uses every room. What a command does, beyond options and printing, belongs in the room that it is about.
"""
