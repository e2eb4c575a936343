"""Network emulation: one host per rank behind a link of a set rate and delay."""
