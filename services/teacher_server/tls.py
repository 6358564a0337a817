"""TLS and mutual TLS out of PEM files, which may be replaced while the server runs.

Each handshake looks whether the files have changed; connections that stand are left alone. Files that do
not fit together, as in the moment between the new certificate and its key, leave the old ones in force.
"""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


class CertificateError(ValueError):
    """A file of the certificates is missing or does not fit the others; says which."""


@dataclass(frozen=True)
class Material:
    """What one handshake is made with: PEM, and the same as a context.

    Attributes:
        client_ca: authorities of clients' certificates; None asks clients for none.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The current content of the files."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Raises CertificateError."""
        self._paths = (certificate, key, *((client_ca,) if client_ca else ()))
        self._lock = threading.Lock()  # gRPC asks on threads of its own
        self._seen = self._state()
        self._material = self._read()

    @property
    def mutual(self) -> bool:
        return len(self._paths) == 3

    def current(self) -> Material:
        """The same object as before as long as nothing has changed."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                self._take()
            return self._material

    def context(self) -> ssl.SSLContext:
        """For a listener: each handshake goes on with what is current."""
        listening = self._read().context

        def on_hello(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            connection.context = self.current().context

        listening.sni_callback = on_hello
        return listening

    def _take(self) -> None:
        try:
            self._material = self._read()
            log.info("certificates read again")
        except CertificateError as error:
            log.error("certificates stay as they were", extra={"fault": str(error)})

    def _read(self) -> Material:
        certificate, key, *authorities = self._paths
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate, key)
            for path in authorities:
                context.load_verify_locations(path)
                context.verify_mode = ssl.CERT_REQUIRED
            chain, private, *trusted = (path.read_bytes() for path in self._paths)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(map(str, self._paths))
            raise CertificateError(
                f"tls: {files}: {error.strerror or error}; give a PEM chain, its key and, for mutual TLS, "
                "the authorities of clients"
            ) from None
        return Material(chain, private, trusted[0] if trusted else None, context)

    def _state(self) -> list[tuple[int, ...]]:
        def of(path: Path) -> tuple[int, ...]:
            try:
                found = path.stat()
            except OSError:
                return ()
            return (found.st_mtime_ns, found.st_size, found.st_ino)

        return [of(path) for path in self._paths]
