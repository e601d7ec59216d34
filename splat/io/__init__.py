"""Files: atomic writes, model formats, Inria's cameras.json, PNG."""
