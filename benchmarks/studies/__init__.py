"""What studies of many cells have in common: processes, records on disk, files that describe them,
and what a difference is worth. `benchmarks/stylebench` and `benchmarks/supcon` are such studies."""
