"""The ops of client graphs, and whether phones have them.

    report = ops_report(plan.client_tflite_graph_bytes)  # report.py: every op, its count, the module version that has it
    min_client_version = check_ops(report)               # report.py: raises UnsupportedOpsError

Uses scan/ and what is below it. Replacing or composing graphs is plan/'s.
"""
