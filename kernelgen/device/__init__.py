"""GPUs: finding them, launching kernels on arrays of any library, measuring, a process that may crash."""
