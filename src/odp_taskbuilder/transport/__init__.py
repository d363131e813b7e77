"""HTTP that ends: one deadline for all that a command does on the network, and secrets kept out of every text."""
