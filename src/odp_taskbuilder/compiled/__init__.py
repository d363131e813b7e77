"""A client plan translated to JAX and compiled by XLA: the flatbuffer's own operators, for simulations of many clients.

Uses artifacts/ and ops/. It knows nothing of rounds, workers or the interpreter: who compares what it computes, and what happens to
clients that it gives back, is simulation/'s. Operators that phones lack do not belong here, nor does anything that only the server runs.
"""
