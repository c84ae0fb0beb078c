"""Label-guided supervised contrastive learning for text-to-image GANs (arXiv 2412.03957)."""
