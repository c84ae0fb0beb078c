"""Pipelines of diffusers that meet the contract of `nsync.denoiser`, without a host."""
