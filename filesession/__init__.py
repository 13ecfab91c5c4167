"""Server-side HTTP sessions, one file each, for Python web apps on one machine."""
