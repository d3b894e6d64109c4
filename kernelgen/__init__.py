"""kernelgen: from a recurrent cell, a shape and a GPU to a validated, tuned kernel."""
