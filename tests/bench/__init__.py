"""How much does it cost? Ratios of CPU time against known programs, measured beside each other in one run."""
