"""Turn flattened C declarations into the C source of a cffi extension module.

Usage: emit_cffi.py MODULE DECLARATIONS SOURCE_HEADER OUTPUT
"""

import sys
from pathlib import Path

from cffi import FFI


def main() -> None:
    """Read the four arguments and write OUTPUT."""
    module, declarations, source_header, output = sys.argv[1:]
    ffi = FFI()
    ffi.cdef(Path(declarations).read_text(encoding="utf-8"))
    ffi.set_source(module, Path(source_header).read_text(encoding="utf-8"))
    ffi.emit_c_code(output)


if __name__ == "__main__":
    main()
