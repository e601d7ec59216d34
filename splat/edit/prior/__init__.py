"""Learned priors for drags: optional, with weights from a local folder."""
