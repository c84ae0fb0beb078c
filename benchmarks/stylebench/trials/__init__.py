"""Training that the product cannot do (yet): the library's own loop with one thing changed.

An arm asks for it by its `trial:`; `choice` says what there is, `loop` runs it.
"""
