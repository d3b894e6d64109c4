"""Models that benchmarks/models.py trains twice: with our recurrence, and with what is there without it."""
