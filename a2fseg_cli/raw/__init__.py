"""From what the scanner exported to what the network takes."""
