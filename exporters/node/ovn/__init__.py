"""OVN: what its daemons tell on their sockets, and what its databases hold, to rows."""
