from kerasext.cli.messages import InputError, describe, printable


def test_printable():
    """What could move a terminal's cursor is shown, letters of all languages stay."""
    assert printable("größe 名前 \x1b[2J\n\r\x7f") == "größe 名前 \\x1b[2J\\n\\r\\x7f"


def test_describe():
    """Messages meant for users stand alone, others have their type; notes follow."""
    assert describe(InputError("no")) == "no"
    assert describe(ValueError("no")) == "no"
    assert describe(ValueError()) == "ValueError: "
    error = RuntimeError("no")
    error.add_note("in the first rows")
    assert describe(error) == "RuntimeError: no\nin the first rows"
