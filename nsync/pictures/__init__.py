"""Picture files and their captions: found, read, written, and fitted to sizes."""
