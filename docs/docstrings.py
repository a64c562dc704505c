"""The griffe extension by which mkdocstrings reads the library's docstrings."""

from __future__ import annotations

import griffe
from markup import to_markdown


class PlainDocstrings(griffe.Extension):
    """Turns every docstring once, before griffe looks for its sections."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Called for every module, class, function and attribute as it is read."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
