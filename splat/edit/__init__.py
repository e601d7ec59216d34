"""Changing a trained model by hand: selections, edits, drags; headless, and the same while it trains."""
