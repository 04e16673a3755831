"""Trees of files as tar streams, both ways, with the file system on one side and an untrusted peer on the other."""
