"""The command line: thin commands, one file a group; each imports what it needs only when it runs."""
