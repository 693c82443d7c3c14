"""What MkDocs does beyond Markdown: pages made when the site is built, and links to files that lie outside of docs.

On GitHub a page links to such a file where it lies; on the site the same link leads to a copy.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from parameters_page import markdown

ROOT = Path(__file__).resolve().parents[1]
COPIES = {  # a file of the repository, and where it is on the site
    "CHANGELOG.md": "changelog.md",
    "data/photo/NOTICE": "model-cards/notice-photo.txt",
    "data/photo/README.md": "model-cards/photo.md",
    "data/photo-painter/NOTICE": "model-cards/notice-photo-painter.txt",
    "data/photo-painter/README.md": "model-cards/photo-painter.md",
    "integrations/README.md": "integrations.md",
    "integrations/comfyui_pbe.py": "comfyui_pbe.txt",
    "reports/tables.png": "tables.png",
}
ON_SITE = COPIES | {"pbe/settings.py": "parameters.md"}  # on GitHub the settings themselves say what each means
_LINK = re.compile(r"(\]\()([^)\s#:]+)([)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of parameters and the copies."""
    files.append(File.generated(config, "parameters.md", content=markdown()))
    for origin, place in COPIES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / origin)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page into those of the site."""
    places = {place: origin for origin, place in COPIES.items()}
    origin = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return _LINK.sub(lambda link: f"{link[1]}{site_link(link[2], origin, page.file.src_uri)}{link[3]}", markdown)


def site_link(link: str, origin: str, place: str) -> str:
    """Return a link of the file `origin` of the repository as a link of the page `place` of the site."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    on_site = ON_SITE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
    return link if on_site is None else posixpath.relpath(on_site, posixpath.dirname(place) or ".")
