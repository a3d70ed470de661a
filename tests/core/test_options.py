"""The table of options is complete, unambiguous, and what README and options.json are made of."""

import json

from imgserve.core import options
from imgserve.core.options import Kind


def test_every_spelling_of_this_stage_is_known() -> None:
    """Each promised name and synonym is looked up to one row; others to none."""
    expected = {
        "w": "w",
        "width": "w",
        "h": "h",
        "height": "h",
        "func": "func",
        "gravity": "gravity",
        "org_if_sml": "org_if_sml",
        "fit_enlarge": "fit_enlarge",
        "dpr": "dpr",
        "tl_px": "tl_px",
        "br_px": "br_px",
        "flip": "flip",
        "r": "r",
        "rotate": "r",
        "bg_color": "bg_color",
        "bg_colour": "bg_color",
        "gray": "gray",
        "grey": "gray",
        "aspect_ratio": "ar",
        "bg_colourise": "bg_colorize",
        "pixellate": "pixelate",
        "saturate": "saturation",
        "q": "q",
        "force_format": "force_format",
        "p": "p",
        "vh": "vh",
        "v": "v",
        "ver": "ver",
        "version": "version",
        "ts": "ts",
        "ci_url_encoded": "ci_url_encoded",
        "ci_sign": "ci_sign",
        "ci_seal": "ci_seal",
        "ci_eqs": "ci_eqs",
    }
    actual = {spelling: option.name for spelling in expected if (option := options.lookup(spelling)) is not None}
    assert expected == actual
    assert options.lookup("wat_url") is None
    assert options.lookup("W") is None


def test_no_spelling_is_used_twice() -> None:
    """Names and synonyms are all different."""
    spellings = [spelling for option in options.OPTIONS for spelling in (option.name, *option.synonyms)]
    assert sorted(set(spellings)) == sorted(spellings)


def test_cache_busters_are_those_of_the_clients() -> None:
    """Exactly five parameters are busters."""
    assert {"vh", "v", "ver", "version", "ts"} == {one.name for one in options.OPTIONS if one.kind is Kind.BUSTER}


def test_markdown_has_a_row_with_four_cells_and_a_mark_for_each_option() -> None:
    """No cell breaks the table, and every option has its line."""
    header, rule, *rows = options.markdown_table().splitlines()
    assert "| parameter | values | default | what it does | certainty |" == header
    assert "|---|---|---|---|---|" == rule
    assert len(options.OPTIONS) == len(rows)
    for option, row in zip(options.OPTIONS, rows, strict=True):
        assert 6 == row.count("|")
        assert f"`{option.name}`" in row
        assert option.mark.value in row


def test_records_are_plain_json() -> None:
    """options.json can be written from them, and names its synonyms."""
    records = json.loads(json.dumps(options.as_records()))
    assert [option.name for option in options.OPTIONS] == [record["name"] for record in records]
    assert ["width"] == records[0]["synonyms"]
