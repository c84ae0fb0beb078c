"""Nodes of the embedded tiny base and its world of pictures."""
