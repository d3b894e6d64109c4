"""From source to binary, and the cache on the disk."""
