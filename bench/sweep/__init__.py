"""One sweep: its rounds, launches, records and announcements."""
