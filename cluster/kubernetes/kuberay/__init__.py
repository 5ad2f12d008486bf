"""What KubeRay 1.7 refuses in its own validation, rule by rule, for each of its kinds.

Source: ray-operator/controllers/ray/utils/validation.go of v1.7.0, with the feature gates of a stock operator.
"""
