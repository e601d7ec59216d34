"""How small the trained model becomes: what compressors do during training, and what they hand to the file after it."""
