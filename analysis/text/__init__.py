"""Numbers, labels, tables and sentences as a person reads them."""
