"""Starting and ending the processes of all ranks."""
