"""From a task to the fastest valid kernel: planning, the search, selection for a call."""
