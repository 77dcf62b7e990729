"""Serve with the handler of shout.c, talk to it once, and tell what it counted.

python shout.py LIBRARY
"""

import ctypes
import socket
import sys

from iocp_adapter import NativeHandler, Server
from pools import SlabPool

library = ctypes.CDLL(sys.argv[1])
raised = ctypes.c_uint64()
handler = NativeHandler("shout", library.shout, context=ctypes.pointer(raised))
pool = SlabPool(16384, 64, thread_safe=True)

with Server("127.0.0.1", 0, handler, provider=pool) as server:
    server.start()
    with socket.create_connection(server.address, timeout=20) as peer:
        peer.sendall(b"is anybody there?\n")
        with peer.makefile("rb") as answers:
            print(answers.readline().decode(), end="")
print(f"{raised.value} letters, {pool.stats().live_blocks} blocks are live")
