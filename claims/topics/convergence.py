"""What training reaches."""

from __future__ import annotations

from claims.claim import Register

CLAIMS: Register = []
