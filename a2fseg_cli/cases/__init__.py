"""Which patients there are, and which of them a command works on."""
