"""StyleBench: which rule teaches a style best, measured where style and content are known.

A study is a YAML file in `studies/`; `docs/stylebench.md` says what the studies ask and found.
"""
