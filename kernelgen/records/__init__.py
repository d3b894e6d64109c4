"""What is written down: trials, tuned configurations, the store."""
