"""What blocks are labelled with: tags, which the program chooses, and sites, the lines that acquired them."""

from __future__ import annotations

from types import CodeType
from typing import NoReturn

from pools._native import CData, Lender, ffi, lib
from pools.errors import error_for
from pools.lease import site_text
from pools.parameters import whole

__all__ = ["Labels"]


class Labels(Lender):
    """The part of a pool that knows texts and their numbers, which are interned in C."""

    name: str
    _c: CData
    _tags: dict[str, int]
    _sites: dict[tuple[CodeType | None, int], int]
    _sites_wanted = False
    """Whether sites are kept though there is no trace."""

    def _refuse_tag(self, text: object, status: int) -> NoReturn:
        if not isinstance(text, str):
            raise TypeError(
                f"tag {text!r} ({type(text).__name__}) for pool {self.name!r}: give a text, or to acquire() "
                "and its like a number that tag() gave; leave it out for none"
            )
        if status == _NO_MEMORY:
            raise error_for(
                status,
                f"tag {len(self._tags) + 1} of pool {self.name!r}",
                "let blocks share tags",
                why="the system refused memory for one more, and each is kept",
            )
        size = len(text.encode("utf-8", "surrogatepass"))
        raise error_for(status, f"a tag of {size} bytes", "use 1 to 4096 bytes of UTF-8")

    def _refuse_number(self, name: str, value: object, of: str, low: int, high: int) -> NoReturn:
        whole(name, value, low, high, f" of {of} pool {self.name!r}")
        raise TypeError(f"{name}={value!r} of {of} pool {self.name!r}: give an int")

    def tag_text(self, tag: int) -> str:
        """The text of a tag number; empty for 0 and for numbers never given.

        Raises ``TypeError`` or ``PoolValueError`` for what is no such number.
        """
        tag = whole("tag", tag, 0, _NUMBER_MAX, f" of tag_text of pool {self.name!r}")
        size = ffi.new("size_t *")
        text = lib.pp_pool_tag_text(self._c, tag, size)
        return "" if text == ffi.NULL else bytes(ffi.buffer(text, size[0])).decode("utf-8", "replace")

    def mark_site(self, text: str) -> None:
        """The acquisition site that blocks carry which C code acquires from now on; empty for none."""
        lib.pp_pool_set_site(self._c, self.tag(text) if text else 0)

    def record_sites(self) -> None:
        """Have every block carry the line of Python that acquires it, from now on.

        A trace and the debug levels do so by themselves.
        """
        self._sites_wanted = self._records_sites = True
        lib.pp_pool_keep_sites(self._c, 1)

    def _site_number(self, code: CodeType | None, instruction: int) -> int:
        """The number of a line of Python that acquires."""
        number = self._sites.get((code, instruction))
        if number is None:
            text = site_text(code, instruction)[:1000]
            number = self._sites[code, instruction] = self.tag(text) if text else 0
        return number


_NO_MEMORY = lib.PP_NO_MEMORY
_NUMBER_MAX = 0xFFFF_FFFF
