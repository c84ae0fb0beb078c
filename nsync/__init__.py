"""NSYNC: teach a text-to-image model a style, bounded by what the style is not.

The library half of the node pack. It never imports the host (ComfyUI); a model is seen only
through :class:`nsync.denoiser.Denoiser`.
"""

__version__ = "0.1.0"
