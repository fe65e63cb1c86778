"""Open a bundle: read the manifest, check its wiring, verify every file's SHA-256.

A bundle is a folder: `manifest.json`, one ONNX file per stage, a golden sample, a model card.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..support.atomic_files import atomic_write_text
from ..support.dataclass_parser import StrictError, parse, plain
from ..support.errors import BundleError
from ..support.plain_file import read_plain_file
from .checks import check_values, check_wiring
from .manifest import MANIFEST, SCHEMA_VERSION, Manifest

MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30  # protobuf's own limit for one ONNX file


def parse_manifest(text: str | bytes, where: str = MANIFEST) -> Manifest:
    """Read and check a manifest's text; `where` names it in messages.

    Raises:
        BundleError: anything is wrong with it.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON: {str(error)[:200]}") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is int and version != SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema version {version}, this runtime reads {SCHEMA_VERSION}",
            "export the checkpoint again with this sonomime"
            if version < SCHEMA_VERSION
            else "install the sonomime that made the bundle",
        )
    if isinstance(data, dict) and data.get("geometry") == "fomm":
        raise BundleError(
            f"{where}: geometry fomm, which sampled FOMM's public weights otherwise than they were "
            "trained, is no longer read",
            "export the checkpoint again; if it came from FOMM's authors, first import it again "
            "(sonomime import-fomm)",
        )
    try:
        manifest = parse(Manifest, data)
        check_values(manifest)
        check_wiring(manifest)
    except (StrictError, BundleError) as error:
        raise BundleError(f"{where}: {error}", error.hint) from None
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` into `folder`, unless it could not be read back.

    Raises:
        BundleError: the manifest is invalid.
        OutputError: it could not be written.
    """
    fields = plain(manifest)
    first = {key: fields[key] for key in ("schema_version", "name", "preset", "created_with")}
    text = json.dumps(first | fields, indent=2, ensure_ascii=False) + "\n"
    parse_manifest(text)
    path = folder / MANIFEST
    atomic_write_text(path, text)
    return path


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle: where it lies, its manifest, and SHA-256 of the manifest's text, which
    covers every file."""

    folder: Path
    manifest: Manifest
    digest: str

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None, digest: str | None = None) -> Bundle:
        """Open the bundle in folder `path` (None: the default one) and verify all of it.

        Args:
            digest: of the bundle that it has to be, if another machine opens the same.

        Raises:
            BundleError: missing, malformed, wired wrongly, or a file differs from its digest; it is
                another bundle.
        """
        folder = Path(__file__).parents[1] / "default_bundle" if path is None else Path(path)
        if not folder.is_dir():
            if path is None:
                raise BundleError(f"the default bundle is missing: {folder}", "install it again")
            hint = "`sonomime export` and `quantize` make one: a folder with a manifest.json"
            raise BundleError(f"no bundle at {folder}", hint)
        text = read_plain_file(folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(text, str(folder / MANIFEST))
        bundle = cls(folder, manifest, hashlib.sha256(text).hexdigest())
        if digest not in (None, bundle.digest):
            what = f"the bundle {folder} of a worker is not the one that the command was given"
            raise BundleError(what, "have the same files, or install the same sonomime, everywhere")
        for file, _ in manifest.digests():
            bundle.read(file)
        return bundle

    def read(self, file: str) -> bytes:
        """A file's content, checked against its digest.

        Raises:
            BundleError: the manifest does not name it, it is not a plain file, or it has changed.
        """
        if (expected := dict(self.manifest.digests()).get(file)) is None:
            raise BundleError(f"{self.folder}: the manifest names no file {file!r}")
        content = read_plain_file(self.folder / file, MAX_FILE_BYTES)
        if hashlib.sha256(content).hexdigest() != expected:
            raise BundleError(
                f"{self.folder / file} differs from its SHA-256 in the manifest",
                "the file was changed or damaged: copy or export the bundle again",
            )
        return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key occurs twice in one table")
    return table


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
