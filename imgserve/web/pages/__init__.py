"""Pages and documents that the server shows of itself."""
