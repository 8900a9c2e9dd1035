"""A job on a Kubernetes cluster: the parts of the runner `k8s`."""
