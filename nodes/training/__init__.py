"""The node that teaches a model a style, and its runs."""
