"""The training loop as a stream of events, its checkpoints, and the sinks that listen."""
