"""Errors as the page shows them."""

from pbe.errors import UserError, one_line


def sentence(error: UserError) -> str:
    """Return an error as a sentence."""
    text = one_line(error)
    begins_with_word = text.split(" ")[0].isalpha()  # and not with the name of a file
    return (
        (text[:1].upper() if begins_with_word else text[:1])
        + text[1:]
        + ("" if text.endswith((".", "!", "?")) else ".")
    )
