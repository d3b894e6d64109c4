"""Proving kernels right: the float64 reference, random inputs, the emulator, validation."""
