"""How gradients are averaged."""

from __future__ import annotations

from claims.claim import Register

CLAIMS: Register = []
