"""A user's FunctionalModel: its input specs read from the file, the model loaded with its weights as variables, a Keras model saved as one,
a first config for it.

Uses config/ and scan/. What may be in a model of unknown origin is scan/'s; what is composed from one is learning/'s.
"""
