"""Certificates for servers of tests, made on the fly."""

from __future__ import annotations

import base64
import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate


@dataclass(frozen=True)
class Certificate:
    """A key and what proves it.

    Attributes:
        key: the file of the private key.
        chain: the file of the certificate.
        pin: the hash of the public key, by which Chromium can be told to trust it (RFC 7469, 2.4).
        issuer: of whom issued it, in PEM.
    """

    key: Path
    chain: Path
    pin: str
    issuer: str

    def trusting(self) -> ssl.SSLContext:
        """For one client, which trusts nothing else; clients change it."""
        return ssl.create_default_context(cadata=self.issuer)


def certified(place: Path, *hosts: str) -> Certificate:
    """A certificate for these host names or addresses; its files are put into a directory."""
    authority = trustme.CA()
    issued = authority.issue_cert(*hosts)
    key, chain = place / "key.pem", place / "chain.pem"
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    leaf = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(public).digest()).decode()
    return Certificate(key, chain, pin, authority.cert_pem.bytes().decode())
