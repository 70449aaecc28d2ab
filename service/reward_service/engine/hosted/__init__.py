"""Models that servers on the network host: their protocols, which of them answer, and who computes what."""
