"""Measuring a GPU's profile: microbenchmarks of cuda/probes/, run in a worker process, written as its file."""
