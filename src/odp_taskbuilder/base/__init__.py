"""What several rooms share and none of them owns: the server's size limits, figures as files, directories that clean up after themselves,
secrets kept out of every text.

Uses nothing of this package but errors.py. What knows of a config, a model, a plan or a server belongs upstairs.
"""
