"""Names people gave their files."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidArgumentError
from services.assets.filenames import MAX_CHARACTERS, clean_filename

FIELD = "header.filename"


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("photo.png", "photo.png"),
        ("Büro Foto 2.jpeg", "Büro Foto 2.jpeg"),
        ("Bu\u0308ro.png", "Büro.png"),
        ("../../etc/passwd", "passwd"),
        ("a/b.png", "b.png"),
        ("C:\\Users\\me\\b.png", "b.png"),
        ("C:b.png", "b.png"),
        ("a\\..\\..", "file"),
        ("", "file"),
        ("   ", "file"),
        ("..", "file"),
        ("a/", "file"),
        (".htaccess", "htaccess"),
        ("--force.png", "force.png"),
        ("-.-.png", "png"),
        ("a.png. . ", "a.png"),
        ("a\tb\x1b[31m.png", "ab[31m.png"),
        ("gpj.\u202eexe.png", "gpj.exe.png"),
        ("\u2066\u200fa\u061c.png", "a.png"),
        ("a\ud800b.png", "ab.png"),
        ('a<script>"|?*:.png', "a_script______.png"),
        ("CON", "_CON"),
        ("con.png", "_con.png"),
        ("nul .tar.gz", "_nul .tar.gz"),
        ("LPT¹.txt", "_LPT¹.txt"),
        ("console.png", "console.png"),
        ("a\u00a0\u3000b.png", "a b.png"),
        ("👩\u200d🎨.png", "👩\u200d🎨.png"),
        ("x" * 300 + ".jpeg", "x" * 95 + ".jpeg"),
        ("x" * 300, "x" * 100),
        ("a." + "x" * 300, "a." + "x" * 98),
        ("x" * 94 + " " * 50 + "y.png", "x" * 94 + " y.png"),
    ],
)
def test_names_are_cleaned(raw: str, name: str) -> None:
    assert clean_filename(raw, FIELD) == name


@pytest.mark.parametrize("raw", ["a\0.png", "a\r.png", "a\nSet-Cookie: x", "\n", "a\n/b.png"])
def test_names_that_attack_are_refused(raw: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        clean_filename(raw, FIELD)
    assert caught.value.reason == "BAD_FILENAME"
    assert [violation.field for violation in caught.value.violations] == [FIELD]


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    st.one_of(
        st.text(max_size=140),
        st.text(alphabet="a.-~ /\\:\u200d\u0301\u202e_CON1", max_size=140),
        st.text(alphabet="ab \u0301.", min_size=90, max_size=130),
    )
)
def test_any_name_comes_out_safe_and_stays_as_it_is(raw: str) -> None:
    try:
        name = clean_filename(raw, FIELD)
    except InvalidArgumentError:
        assert set(raw) & set("\0\r\n")
        return
    assert 1 <= len(name) <= MAX_CHARACTERS
    assert unicodedata.is_normalized("NFC", name)
    assert not set(name) & set('/\\:"<>|?*\0\r\n\u202e')
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert clean_filename(name, FIELD) == name
    name.encode()
