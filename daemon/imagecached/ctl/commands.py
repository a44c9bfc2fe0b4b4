"""The commands of ``imagecachectl`` and what they take, as a table that names their modules."""

from __future__ import annotations

from os.path import realpath

from imagecached.ctl.arguments import Argument, Command, Option, natural, one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEFAULT_SOCKET: Final = "/run/imagecached/imagecached.sock"
SOCKET_VARIABLE: Final = "IMAGECACHED_DAEMON__SOCKET"
FORMS: Final = ("table", "json", "yaml")
MODES: Final = ("handler", "default")
CONTAINERD_CONFIG: Final = "/etc/containerd/config.toml"
KINDS: Final = ("imagecaches", "images", "snapshots", "layers")
CACHES: Final = ("imagecaches", "imagecache", "imc", "ic")
"""The kind and its other names, as in a cluster."""

_IMAGE: Final = Argument("image", "IMAGE|imc-ID")
_IMAGES: Final = Argument("images", "IMAGE...")
_DIRECTORY: Final = Argument("directory", "DIRECTORY", read=realpath)
_OUTPUT: Final = Option(
    "-o --output", "How to print the answer; table by default.", "table|json|yaml", read=one_of(*FORMS)
)
_WIDE_OUTPUT: Final = Option(
    "-o --output", "How to print the answer; table by default, wide says more.", "table|wide|json|yaml",
    read=one_of("wide", *FORMS),
)  # fmt: skip

_ANNOTATIONS: Final = Option(
    "-a --annotation", "As on a pod: which ImageCache to use.", "KEY=VALUE", many=True
)
_FILES: Final = Option("-f --filename", "A file of manifests, - for standard input.", "FILE", many=True)

PROGRAM: Final = Command(
    "", "", "Container images, ready in milliseconds.",
    Option("--socket", f"The daemon's unix socket; ${SOCKET_VARIABLE}, or {DEFAULT_SOCKET}.", "PATH"),
    _OUTPUT,
    Argument("words", "COMMAND..."),
    mixed=False,
)  # fmt: skip
"""What comes before the command; the command and what follows are its ``words``."""

_COMMANDS: Final = (
    Command(
        "apply", "caches", "Declare ImageCaches; the daemon keeps them, also over a restart.",
        _FILES,
        Option("--wait", "Until each is Ready or has failed; the exit code says which."),
        Option("--timeout", "Wait at most so long; 0 = for ever.", "SECONDS", default=0, read=natural),
        Option("-q --quiet", "No progress."),
        _OUTPUT,
    ),
    Command(
        "blobs", "images",
        "Bring layers into containerd as the registry has them, to push or export.",
        Argument("action", "fetch", read=one_of("fetch")), _IMAGES,
        Option("-q --quiet", "No progress."), _OUTPUT,
    ),
    Command(
        "containerd-config", "containerd", "Print the settings with which containerd starts pods from here.",
        Option("--mode", "A runtime handler of ours, or all pods.", "handler|default", read=one_of(*MODES)),
        Option("--version", "Instead of what `containerd --version` says.", "1.6|1.7|2.x", default=""),
        Option(
            "--config", f"What containerd reads now; {CONTAINERD_CONFIG}.", "FILE", default=CONTAINERD_CONFIG,
            read=realpath,
        ),
        Option("--snapshots", "The socket of the snapshots service, if it is elsewhere.", "PATH", default=""),
        Option("--root", "The daemon's root, if it is elsewhere.", "DIRECTORY", default=""),
    ),
    Command(
        "delete", "caches", "Take back ImageCaches that were applied; containers keep what they use.",
        Argument("names", "NAME|imc-ID..."),
    ),
    Command(
        "describe", "images",
        "An image or an ImageCache: layers, sizes, where the time went, events.",
        Argument("image", "IMAGE|NAME|imc-ID"), _OUTPUT,
    ),
    Command(
        "doctor", "upkeep", "Can this host do it, and what to do if not. Works without a daemon, as root.",
        _OUTPUT,
    ),
    Command(
        "events", "upkeep", "What happened lately, oldest first.",
        Option("-f --follow", "Wait for more."),
        Option("--since", "Only events after this number.", "NUMBER", default=0, read=natural),
        _OUTPUT,
    ),
    Command(
        "fsck", "upkeep", "Verify every file against its digest. Exit code 5 if a fault remains.",
        Option("--repair", "Drop what is corrupt and mark its images."), _OUTPUT,
    ),
    Command(
        "gc", "upkeep",
        "Free what nothing uses, and above the high watermark images not used lately.",
        Option("--dry-run", "Only say what would go."), _OUTPUT,
    ),
    Command(
        "get", "images", "What is there: all of a kind, or one by its name or the start of its digest.",
        Argument("kind", "|".join(KINDS), read=one_of(*CACHES, *KINDS[1:])), Argument("name", "[NAME]"),
        Option("-w --watch", "Print ImageCaches again whenever one changes."), _WIDE_OUTPUT,
    ),
    Command(
        "match", "caches", "Which ImageCache would a pod get, and why. Takes whatever has a pod template.",
        _FILES, _OUTPUT,
    ),
    Command(
        "mount", "use", "Mount an image's tree on an empty DIRECTORY; pulls the image if it is not here.",
        _IMAGE, _DIRECTORY, Option("--read-write", "Allow changes, which umount drops."), _ANNOTATIONS,
    ),
    Command(
        "pull", "images", "Make images ready.",
        _IMAGES,
        Option("--platform", "Instead of this host's.", "OS/ARCH[/VARIANT]", default=""),
        Option("-q --quiet", "No progress."),
        _OUTPUT,
    ),
    Command(
        "rm", "images", "Forget images. gc frees the disk; running containers keep what they use.",
        _IMAGES,
    ),
    Command(
        "run", "use", "Run a container of IMAGE, pulled if it is not here; ends with its exit code.",
        _IMAGE,
        Argument("command", "[COMMAND...]"),
        Option("-e --env", "Over the image's environment.", "NAME=VALUE", many=True),
        Option("-w --workdir", "Instead of the image's.", "DIR", default=""),
        Option("-u --user", "Instead of the image's.", "USER[:GROUP]", default=""),
        _ANNOTATIONS,
        mixed=False,
    ),
    Command("umount", "use", "Undo a mount.", _DIRECTORY),
    Command("version", "upkeep", "Of this program, and of the daemon if it runs.", _OUTPUT),
)  # fmt: skip

COMMANDS: Final = {command.name: command for command in _COMMANDS}
