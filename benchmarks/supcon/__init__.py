"""Does label-guided contrast help a text-to-image GAN? See docs/supcon.md."""
