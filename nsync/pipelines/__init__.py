"""Pipelines of diffusers that meet the contract of `nsync.denoiser`, without a host.

`load` reads one from the disk; `DiffusersDenoiser` takes one that is already there.
"""

from .denoiser import DiffusersDenoiser
from .loading import load

__all__ = ["DiffusersDenoiser", "load"]
