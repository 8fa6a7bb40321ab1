"""libnftables by ctypes: one atomic change of the packet filter in well under a millisecond.

A fresh `nft` process takes some 10 ms between its start and its change, which would be the width of every truth; the
library takes 0.4 ms. It comes with Debian's and Fedora's `nftables` package.
"""

import ctypes
import threading

from exporters.calibrate.injection import NotInjectedError

LIBRARY = "libnftables.so.1"
_one_at_a_time = threading.Lock()  # the library keeps state of its own beside the context


class Nftables:
    """The packet filter of the network namespace of the thread that makes this; only that thread may use it.

    The library reopens its socket when a transaction is interrupted, in the namespace of the thread that called.
    """

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise NotInjectedError(f"{LIBRARY} is needed to drop packets: install the nftables package") from error
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_error", "nft_ctx_get_error_buffer", "nft_ctx_free"):
            getattr(self._lib, name).argtypes = [ctypes.c_void_p]
        self._lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._context = self._lib.nft_ctx_new(0)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, commands: str) -> None:
        """Apply `commands` (as in an nft file) as one transaction: all of them or, with an error, none."""
        with _one_at_a_time:
            failed = self._lib.nft_run_cmd_from_buffer(self._context, commands.encode())
            message = self._lib.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NotInjectedError(f"nft: {message.decode(errors='replace').strip()} in: {commands}")

    def close(self) -> None:
        """Free the context; call it once."""
        self._lib.nft_ctx_free(self._context)
