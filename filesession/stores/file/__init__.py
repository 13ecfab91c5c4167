"""Sessions in a directory, one file each."""
