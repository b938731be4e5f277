"""Whether a request to a server on this machine means this server: against other sites and names that point here."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

EVERY_ADDRESS = ("", "0.0.0.0", "::")
"""Hosts that listen on all addresses of a machine."""


def is_loopback(host: str) -> bool:
    """Whether a server that listens on ``host`` can be reached from this machine alone.

    Examples:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_this_server(netloc: str, host: str, port: int) -> bool:
    """Whether a ``Host`` or ``Origin`` names the server at host and port: by an address, or by the name it was given.

    Examples:
        >>> names_this_server("localhost:8000", "127.0.0.1", 8000)
        True
        >>> names_this_server("evil.example:8000", "127.0.0.1", 8000)  # a name that somebody made point here
        False
    """
    parts = urlsplit(f"//{netloc}")
    try:
        name, named_port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if named_port not in (None, port):
        return False
    if name in ("localhost", host):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or host in EVERY_ADDRESS


def page_address(host: str, port: int) -> str:
    """What a person on this machine opens.

    Examples:
        >>> page_address("0.0.0.0", 8000), page_address("::1", 80)
        ('http://127.0.0.1:8000/', 'http://[::1]:80/')
    """
    name = "127.0.0.1" if host in ("", "0.0.0.0") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/"
