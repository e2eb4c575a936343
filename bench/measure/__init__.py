"""Instruments: each measures one thing and is checked against a case with a known answer."""
