"""Text from strangers, for a terminal: without anything that it obeys. Pure."""


def plain(text: str) -> str:
    """The text without controls, and without what turns the direction of writing."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
