"""Words that phases are called by. Pure."""

NONE = "none"  # no phase of that kind
MANUAL = "manual"  # the kind of those that somebody marked
NODE = "node"  # the kind of phases that nodes are in
