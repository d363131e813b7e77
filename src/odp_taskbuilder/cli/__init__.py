"""The `odp-task` command: one module per command, each of which parses options, calls one library function and prints its result."""
