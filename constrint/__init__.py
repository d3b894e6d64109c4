"""constrint: a solver for integer constraints, made for tuning spaces."""
