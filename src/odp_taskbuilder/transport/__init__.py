"""HTTP that ends: one deadline for all that a command does on the network, and secrets kept out of every text.

Uses errors.py only. Who asks, and what is asked, is push/'s and server/'s.
"""
