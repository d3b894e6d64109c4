"""What benchmarks/rnn.py is made of: rows, floors, the systems side by side, their timing, results and plots."""
