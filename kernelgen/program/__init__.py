"""The nouns: shapes, dtypes, tilings, what a kernel's arguments are and how it is launched."""
