"""Text files of annotations: JSON, YAML, XML, CSV and lists, in encodings that a file states or shows with certainty.

A byte order mark, the pattern of zero bytes in UTF-16 and UTF-32, and an XML declaration are certain. Any other file is
UTF-8, or an error that says so: nothing distinguishes cp1252 from GBK, and a wrong guess would garble class names.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from pbe.errors import UserError

Row = dict[str, str]

_XML_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}  # what Windows writes
_UNICODE = ("utf", "ucs", "unicode", "ascii", "us-ascii")


def read_text(path: Path) -> str:
    """Return a text file's content without its byte order mark.

    Raises UserError naming the file when it cannot be read, when it is not text, or when it is not UTF-8 and nothing
    states its encoding.
    """
    return _decode(_read_bytes(path), path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the content of each line that is not blank; raises what `read_text` raises."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def read_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """Yield the line number and the fields, by column and without spaces around them, of each CSV row that has any.

    Commas, semicolons or tabs separate fields; columns have no case. Raises what `read_text` raises, and UserError when
    one of the `required` columns is missing or a line has another number of fields.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True)
    try:
        header = [name.strip().casefold() for name in next(reader, [])]
        missing = [column for column in required if column not in header]
        if missing:
            found = ", ".join(header) or "none"
            raise UserError(f"{path}: column {', '.join(missing)} is missing; columns found: {found}")
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            if len(fields) != len(header):
                raise UserError(f"{path}: line {reader.line_num}: {len(fields)} fields, but {len(header)} columns")
            yield reader.line_num, {name: field.strip() for name, field in zip(header, fields, strict=True)}
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises what `read_text` raises, and UserError when it is not JSON."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
    """Return the content of a JSON text; raises UserError saying `where` it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not a JSON file: {error}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
        raise UserError(f"{where}: cannot be read as JSON: {error}") from None


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file whose scalars all stay text, so that `yes` and `on` are not booleans.

    Raises what `read_text` raises, and UserError when it is not YAML.
    """
    try:
        return yaml.load(read_text(path), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not a YAML file: {' '.join(str(error).split())}") from None


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file in the encoding that it declares.

    Raises UserError naming the file when it is not XML, or not in that encoding.
    """
    data = _read_bytes(path)
    declared = _XML_DECLARATION.match(data)
    text = _decode(data, path) if declared is None else _decode_as(data, declared[1].decode(), path)
    try:
        return ElementTree.fromstring(text.lstrip())
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not an XML file: {error}") from None


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None


def _decode(data: bytes, path: Path) -> str:
    encoding = _shown_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"{path}: line {line} is not {encoding.removesuffix('-sig').upper()}; save the file as UTF-8"
        raise UserError(message) from None
    text = text.removeprefix("\ufeff")  # a second mark
    if "\0" in text:
        raise UserError(f"{path}: not a text file; it holds zero bytes")
    return text


def _shown_encoding(data: bytes) -> str:
    """Return the encoding that a byte order mark or the pattern of zero bytes shows, else UTF-8."""
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return json.detect_encoding(data)


def _decode_as(data: bytes, declared: str, path: Path) -> str:
    """Decode XML by its declaration; what calls itself UTF-16 in single bytes is UTF-8 from .NET's string writer."""
    name = declared.lower()
    if name.startswith(_UNICODE):
        return _decode(data, path)
    try:
        return data.decode(_SUPERSETS.get(name, name))
    except LookupError:
        raise UserError(f"{path}: the encoding {declared!r} is not known; save the file as UTF-8") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not in {declared}, which it declares; save the file as UTF-8") from None
