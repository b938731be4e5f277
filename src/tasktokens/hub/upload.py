"""Writing to the Hub: all files in one commit, so that nobody ever downloads half of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tasktokens.errors import HubError
from tasktokens.hub.address import HubAddress


def upload(
    address: HubAddress,
    files: Callable[[str | None], Mapping[str, Path | bytes]],
    ours: Callable[[str], bool],
    private: bool,
    token: str | None,
    message: str,
) -> str:
    """Write files into a repository, which is made where there is none, and return the page of the commit.

    Args:
        address: its repository; its revision is the branch, made where there is none.
        files: given the README.md that is there, or None: contents by path in the repository.
        ours: whether a file that is there belongs to what an earlier upload wrote; those that are not among ``files``
            now are deleted, or they would be taken for a part of it.
        private: whether only its owner may see the repository.
        token: of the Hub; None: the one that is logged in.
        message: of the commit.

    Raises:
        HubError: the Hub refuses or cannot be reached, or the repository is seen by others, or by fewer, than
            ``private`` says.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    from tasktokens.hub.failures import LOG_IN, told_in_one_sentence

    with told_in_one_sentence(address, "written"):
        if not (token or _logged_in()):
            raise HubError(f"{address} cannot be written without a token; {LOG_IN}")
        api = HfApi(endpoint=constants.ENDPOINT, token=token)
        repository, kind, branch = address.repository, address.kind, address.revision
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        _check_visible(address, private, bool(api.repo_info(repository, repo_type=kind).private))
        if branch:
            api.create_branch(repository, repo_type=kind, branch=branch, exist_ok=True)
        there = set(api.list_repo_files(repository, repo_type=kind, revision=branch))
        below = f"{address.folder}/" if address.folder else ""
        card = None
        if f"{below}README.md" in there:
            found = api.hf_hub_download(repository, f"{below}README.md", repo_type=kind, revision=branch)
            card = Path(found).read_text(encoding="utf-8")
        new = {below + name: content for name, content in files(card).items()}
        stale = [name for name in sorted(there - set(new)) if name.startswith(below) and ours(name[len(below) :])]
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        operations += [CommitOperationAdd(name, content) for name, content in new.items()]
        operations += [CommitOperationDelete(name) for name in stale]
        commit = api.create_commit(
            repository, operations, commit_message=message, repo_type=kind, revision=branch
        )  # fmt: skip
        written = api.list_repo_files(repository, repo_type=kind, revision=commit.oid)
        if left_out := sorted(set(new) - set(written)):
            raise HubError(
                f"{address}: {len(left_out)} files were left out, such as {left_out[0]}: the repository has a "
                f".gitignore that names them; remove it there, then push again"
            )
    return str(commit.commit_url)


def _logged_in() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _check_visible(address: HubAddress, private: bool, is_private: bool) -> None:
    """What was meant for few must not be seen by all, and the other way round."""
    if private != is_private:
        now, asked = ("private", "public") if is_private else ("public", "private")
        raise HubError(
            f"{address} is {now}, and {asked} was asked for; nothing was written: change it on the Hub, or push with "
            f"{'--private' if is_private else '--public'}"
        )
