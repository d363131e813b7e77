"""Looking into artifacts, whoever built them, without TensorFlow.

    inspection = inspect(["odp_artifacts/digits"])       # inspect.py: plans, checkpoints, the bytes that each round moves
    verification = verify("odp_artifacts/digits")        # verify.py: whether they are intact, belong together and will run
    differences = diff("odp_artifacts/digits", "before") # diff.py: what two builds say differently

What is read may come from anyone. Everything is bounded: sizes, counts, depths, and the memory that each byte may turn into.

Uses artifacts/, runtime/ (a trial round) and build.py. It changes nothing: what writes artifacts is build.py's and artifacts/'.
"""
