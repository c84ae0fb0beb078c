"""StyleBench: which training rule catches a style best, and at what cost of content and drift."""
