"""What a build produces: its files, their manifest, writing them to a directory at once, and reading them back.

directory.save(artifact_set, "odp_artifacts/digits", form="MapReduce", inputs=digests)
manifest.read_manifest("odp_artifacts/digits")

Uses plan/ (the table format of checkpoints), config/, privacy/ and ops/. Where a directory is brought to is stores/' and push/'s; running what is
in it is runtime/'s.
"""
