"""The learning process that TFF composes from a model and a TaskSpec: aggregators, training, evaluation, metrics, preprocessing.

Uses model/, privacy/ and config/. How a process becomes the graphs of a plan is plan/'s.
"""
