"""What more ranks bring."""

from __future__ import annotations

from claims.claim import Register

CLAIMS: Register = []
