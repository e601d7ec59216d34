"""Looking at a finished model: scores of held-out views, and pictures along any path."""
