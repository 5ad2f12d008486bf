"""Objects on a Kubernetes cluster: applied, waited for, taken away."""
