"""The stages of the path, a file each: prepare, tune, train, evaluate, serve.

They run inside a session of `sessions` and report to a View; commands and the demo are made of them.
"""
