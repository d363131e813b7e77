"""What a model of unknown origin may hold, told from its files alone: `scan.require_safe` is the door.

Loads nothing and needs no TensorFlow; uses proto/ and errors.py. Loading a model that passed is model/'s; running one safely is sandbox/'s.
"""
