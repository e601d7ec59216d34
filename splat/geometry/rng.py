"""Keyed randomness: a generator is a function of (seed, purpose, step), so a checkpoint stores none of them."""

from __future__ import annotations

import hashlib

import torch


def keyed_seed(seed: int, purpose: str, step: int) -> int:
    """A 63-bit seed that differs whenever one of the three differs (up to a hash collision)."""
    digest = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(seed: int, purpose: str, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one purpose at one step; equal arguments give equal numbers."""
    return torch.Generator(device=device).manual_seed(keyed_seed(seed, purpose, step))
