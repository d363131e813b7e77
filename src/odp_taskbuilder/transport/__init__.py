"""HTTP that ends: one deadline for everything a command does on the network, timeouts on every socket, secrets kept out of text."""
