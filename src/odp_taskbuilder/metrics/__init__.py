"""Metrics of rounds: read as the server or a simulation wrote them, shown as a table, plotted, exported.

    reading.read_runs    directories and buckets in, Runs out
    run_facts.read_facts    what a run directory says beside metrics
    table, plot, csv_export, tensorboard, report_page    what becomes of them

No module here imports TensorFlow.

Uses data/ and stores/. Computing metrics is learning/'s; what a run says of itself while it runs is simulation/'s.
"""
