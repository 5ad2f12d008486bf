"""Heliostat: from a base model and your own data to a monitored, autoscaled endpoint."""

__version__ = "0.1.0"
