"""Nodes that make a style set: pictures, captions, negatives."""
