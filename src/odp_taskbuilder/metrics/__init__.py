"""Metrics of rounds: read as the server or a simulation wrote them, shown as a table, plotted, exported.

    reading.read_runs    directories and buckets in, Runs out
    table, plot, csv_export, tensorboard    what becomes of them

No module here imports TensorFlow.

Uses data/ and stores/. Computing metrics is learning/'s; what a run says of itself while it runs is simulation/'s.
"""
