"""Collectives, their sizes, and bytes at the network interface."""
