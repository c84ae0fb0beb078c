"""The custom socket types of this pack, each declared once."""

from comfy_api.latest import io

StyleSetSocket = io.Custom("NSYNC_STYLE_SET")
