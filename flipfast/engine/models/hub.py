"""Finds or downloads a model's files, given a folder or a hub name."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from flipfast.errors import ModelLoadError

_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")


def fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    """The local folder itself, or the hub cache's folder with the matching files downloaded.

    Args:
        name: a local folder or a hub name.
        revision: of the hub model; None is its main branch.
        patterns: of file names to download; cached files are not downloaded again.

    Raises:
        ModelLoadError: no such folder, no such hub model, or no way to reach it.
    """
    folder = local_folder(name)
    if folder is not None:
        return folder
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError:
        raise ModelLoadError(not_cached(name)) from None
    except Exception as error:
        known = refusal(name, revision, error)
        if known is not None:
            raise ModelLoadError(known) from None
        raise ModelLoadError(
            f"could not download {name!r}: {type(error).__name__}: {error}"
        ) from error


def gguf_path(name: str, revision: str | None) -> Path | None:
    """The GGUF file that a name stands for, the first one of a split model; None if it is none.

    Args:
        name: a file, a folder with one model in GGUF and no config.json, or "REPO:FILE.gguf".
        revision: of the hub model; None is its main branch.

    Raises:
        ModelLoadError: no such file, a folder with several models, or no way to reach the hub.
    """
    path = Path(name).expanduser()
    if name and path.is_dir() and not (path / "config.json").exists():
        found = sorted(path.glob("*.gguf"))
        models = [file for file in found if file == first_shard(file)]
        if len(models) > 1:
            names = ", ".join(file.name for file in models)
            raise ModelLoadError(f"{name!r} holds several GGUF models: name one of {names}")
        return models[0] if models else found[0] if found else None
    if path.suffix.lower() != ".gguf":
        return None
    if path.is_file():
        return first_shard(path)
    repository, colon, file_name = name.rpartition(":")
    if not colon or repository.count("/") != 1:
        raise ModelLoadError(
            f"there is no file {name!r} (looked for {path.absolute()}); a file on the hub is "
            "'REPO:FILE.gguf'"
        )
    folder = fetch(repository, revision, [shard_pattern(file_name)])
    if not (folder / file_name).is_file():
        raise ModelLoadError(f"the hub model {repository!r} has no file {file_name!r}")
    return first_shard(folder / file_name)


def first_shard(path: Path) -> Path:
    """The first file of a split model of which one is named; the path itself for others."""
    named = _SHARD.fullmatch(path.name)
    return path if named is None else path.with_name(f"{named[1]}-00001-of-{named[2]}.gguf")


def shard_pattern(name: str) -> str:
    """A pattern of all files of the model that a file belongs to."""
    named = _SHARD.fullmatch(name)
    return name if named is None else f"{named[1]}-*-of-{named[2]}.gguf"


def local_folder(name: str) -> Path | None:
    """The folder of that name; None if it can only be a hub name.

    Raises:
        ModelLoadError: the name is a file, or a path where there is no folder.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if name and path.exists():
        raise ModelLoadError(
            f"{name!r} is a file; name the folder that holds config.json instead; GGUF "
            "files, which end in .gguf, are for the native engine"
        )
    if not name or name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1:
        raise ModelLoadError(
            f"there is no folder {name!r} (looked for {path.absolute()}); "
            "name a folder that holds config.json, or a hub model such as Qwen/Qwen3-0.6B"
        )
    return None


def refusal(name: str, revision: str | None, error: Exception) -> str | None:
    """The message to show if the hub refuses a model; None for other errors."""
    if isinstance(error, GatedRepoError):
        return (
            f"the hub model {name!r} is gated; accept its terms on the hub, then log in with "
            "'hf auth login'"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"the hub model {name!r} has no revision {revision!r}"
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return (
            f"{name!r} is neither a local folder nor a model on the hub; check the spelling, "
            "or log in with 'hf auth login' if it is private"
        )
    return None


def not_cached(name: str) -> str:
    """The message to show if the user is offline and the model is not cached."""
    return (
        f"{name!r} is no local folder, the hub cannot be reached, and the local hub cache does "
        "not hold it; check the network, or name a folder that holds config.json"
    )
