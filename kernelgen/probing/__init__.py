"""Measuring a GPU's profile: microbenchmarks of cuda/probes/, run in a worker process, and written as a profile's file."""
