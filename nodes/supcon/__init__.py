"""Nodes of the second method: encoders and text-to-image GANs, trained and used."""
