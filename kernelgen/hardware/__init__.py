"""GPUs as numbers: profiles, and reading the files of profiles/."""
