"""From what the scanner exports to what the network takes: co-registration, brain extraction."""
