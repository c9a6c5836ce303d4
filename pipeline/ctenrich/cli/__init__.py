"""The command line: thin commands, one file per group; each imports the package only when it runs."""
