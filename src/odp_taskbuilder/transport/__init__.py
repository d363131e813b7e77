"""HTTP that ends: one deadline for all that a command does on the network.

Uses base/ and errors.py. Who asks, and what is asked, is push/'s and server/'s.
"""
