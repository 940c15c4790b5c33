"""What goes wrong with a hub, in one line that names the repository and how to go on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

_CACHED = "a path, or HF_HUB_OFFLINE=1 where the cache has it"
_STATUS = {
    401: "no access (401): no such model, or a private one (then hf auth login)",
    403: "the token may not read it (403); needs hf auth login with one that may",
    407: "the proxy refuses (407); needs HTTPS_PROXY with its password",
    429: f"too many requests (429); wait, hf auth login for more of them, {_CACHED}",
}


@contextmanager
def asking(repo: str) -> Generator[None, None, None]:
    """Turns what huggingface_hub raises into one line; revisions that are absent are left to it.

    Args:
        repo: named in every message.

    Raises:
        RevisionNotFoundError: as it is.
        ValueError: for what the user can mend: names, rights, files of another form.
        ConnectionError: for what the network and the hub do.
    """
    from huggingface_hub import errors

    forms = (errors.NotASafetensorsRepoError, errors.SafetensorsParsingError)
    try:
        yield
    except errors.RevisionNotFoundError:
        raise
    except errors.GatedRepoError as error:
        raise ValueError(
            f"hub: got {repo!r}, a gated model: accept its terms on its page, then hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"hub: got {repo!r}, no such model, or a private one (then hf auth login)"
        ) from error
    except (errors.HTTPError, errors.EntryNotFoundError, OSError) as error:
        raise ConnectionError(f"hub: got {repo!r}, {_what_failed(error)}") from error
    except (*forms, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # a proxy's page in the place of an answer, an index or a header of another shape
        said = " ".join(f"{type(error).__name__} {error}".split())
        raise ValueError(
            f"hub: got {repo!r}, an answer of another form than a hub gives ({said:.120})"
        ) from error


def _what_failed(error: BaseException) -> str:
    from huggingface_hub import constants, errors, is_offline_mode

    cause = error.__cause__ or error.__context__
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(cause, errors.HTTPError):
        error = cause  # it would have been found in the cache if the network was down
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        other = f"the hub answers {status}; try again later, or {_CACHED}"
        return str(_STATUS.get(status, other))
    if is_offline_mode():
        return "not wholly in the cache (HF_HUB_OFFLINE); unset it, or give a path"
    said = " ".join(f"{type(error).__name__} {error}".split())
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.strerror}: {error.filename}"  # of this machine: a full disk, no permission
    return f"no connection to {constants.ENDPOINT} ({said:.80}); allowed: {_CACHED}"
