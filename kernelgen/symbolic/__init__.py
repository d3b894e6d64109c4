"""What sympy does: straight-line code, the derived backward step, what may be hoisted, instruction counts."""
