"""Files for Ray's cluster launcher, rendered from `cluster.launcher` of a spec; what a rendered head needs of us."""
