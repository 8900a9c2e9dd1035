"""Kubernetes: a Job for each run, on any cluster that a kubeconfig names."""
