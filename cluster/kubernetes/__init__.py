"""One model on Kubernetes: what is rendered over the manifests of `k8s/`, and the folder that it is kept in."""
