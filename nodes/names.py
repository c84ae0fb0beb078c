"""Names that a workflow gives to what it makes."""

from ..nsync.names import check_name

__all__ = ["check_name"]
