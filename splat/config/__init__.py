"""Settings: what they are, where they come from, and the one place where concrete parts meet."""
