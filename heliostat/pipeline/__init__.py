"""The stages of the path, a file each: prepare, tune, train, evaluate, serve; and what commands beside them do.

Stages run inside a session of `sessions` and tell a View how they fare; commands and the demo are made of them.
"""
