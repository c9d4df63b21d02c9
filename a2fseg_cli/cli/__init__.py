"""The command line. One module a command: parse, call, print."""
