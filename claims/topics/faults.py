"""What happens when a rank dies."""

from __future__ import annotations

from claims.claim import Register

CLAIMS: Register = []
