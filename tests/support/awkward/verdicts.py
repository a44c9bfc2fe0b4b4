"""What containerd answered, learnt by asking: 1.6.20 (Debian 12) and 2.1.9 (Debian sid) agree on every tar.

The images named here are refused, with containerd's last words. All others give a tree, and ours must
equal it. What is behind the surprising ones:

- The bottom layer is unpacked into a plain directory, the others into an overlay's upper directory. In the
  bottom layer a whiteout removes what the layer itself made before, further up that is "file exists".
- While a layer is unpacked only its own upper directory is looked at. A hard link to a file of a lower
  layer is refused; a symlink of a lower layer is none: `lib/x` above `lib -> usr/lib` makes a directory
  that hides it.
- A parent without entry gets the attributes of the first lower layer, seen alone and with symlinks resolved
  inside it, in which the path exists. Whiteouts and opaque directories in between do not count. A file in
  the place of a parent's parent is an error ("not a directory"). What is made in such a parent inherits
  from it.
- A directory over a whiteout of the same layer merges with what was below: the whiteout is lost.
- Entries that are the root are skipped: the root is always 0755 root:root.
- Times of directories are set at the end, by path, following symlinks. A file that replaced a directory has
  the directory's time; where nothing is left: "no such file or directory".
- A header of type `g` counts as an entry up to the last step: it makes its parents and removes what has its
  name.
- Times outside 1970..2262 become 1970. Owners are cut to 32 bits, and 2^32-1 leaves the owner alone. Device
  numbers are cut to 12 and 20 bits, so that the character device 4096:0 is a whiteout.
- Types other than `0` to `6` and NUL are refused, GNU's old sparse files (`S`) and contiguous files (`7`)
  included.
- Attributes `trusted.*`, of unknown namespaces, and `user.*` where Linux has none, are dropped. Any other
  failure to set one is an error: values beyond what the host's file system stores (ext4: about 4 KiB), bad
  capabilities, ACLs.
- Nothing is read behind two blocks of zeros. Behind one block of zeros there must be nothing.
"""

from __future__ import annotations

from typing import Final

_BY_WORDS: Final = {
    "file exists": [
        "file-then-whiteout",
        "child-then-whiteout-of-parent",
        "directory-then-whiteout",
        "whiteout-twice",
    ],
    "not a directory": [
        "whiteout-then-child-without-entry",
        "whiteout-below-whiteout",
        "opaque-in-file",
        "child-below-whiteout-lower-layer",
        "parent-is-file",
        "parent-is-own-whiteout",
        "parent-is-fifo",
        "parent-is-device",
        "symlinked-parent-to-file",
        "duplicate-tree-replaced-by-file",
        "name-v7",
    ],
    "invalid archive": [
        "whiteout-empty-name",
        "whiteout-empty-name-in-directory",
        "whiteout-dot",
        "whiteout-dot-dot",
        "bottom-whiteout-empty-name",
    ],
    "no such file or directory": [
        "bottom-whiteout-after-tree",
        "duplicate-directory-then-dangling-symlink",
        "symlink-empty-target",
        "link-lower",
        "link-lower-same-directory",
        "link-lower-directory-entry",
        "link-lower-through-symlink",
        "link-to-whiteout-marker",
        "link-outside",
        "link-before-target",
        "link-to-itself",
        "link-to-itself-missing",
        "link-missing",
        "link-to-own-child",
    ],
    "too many links": [
        "symlinked-parent-loop",
        "symlinked-parent-self",
    ],
    "invalid tar header": [
        "name-nul-in-pax",
        "name-nul-in-pax-link",
        "link-with-data",
        "link-with-data-pax",
        "owner-pax-garbage",
        "time-pax-garbage",
        "time-pax-over-int64",
        "device-with-size",
        "fifo-with-size",
        "directory-with-size",
        "symlink-with-size",
        "flag-53",
        "sparse-1.0-no-realsize",
        "sparse-1.0-overlap",
        "sparse-1.0-past-end",
        "sparse-1.0-negative",
        "sparse-1.0-garbage-map",
        "sparse-old-overlap",
        "sparse-old-past-end",
        "sparse-old-ustar-magic",
        "pax-size-negative",
        "pax-size-garbage",
        "pax-bad-length",
        "pax-no-newline",
        "pax-no-equals",
        "pax-empty-key",
        "pax-nul-key",
        "pax-nul-uname",
        "end-one-block-then-entry",
        "end-one-block-then-garbage",
        "layer-garbage",
        "header-bad-checksum",
        "header-garbage-mode",
        "header-negative-size",
        "header-size-over-63-bits",
        "octal-space-inside",
        "octal-plus",
        "octal-minus",
        "octal-prefix",
        "octal-underscore",
        "octal-digit-8",
        "octal-tab",
        "octal-size-space-inside",
        "octal-size-plus",
        "octal-size-minus",
        "octal-size-prefix",
        "octal-size-underscore",
        "octal-size-digit-8",
        "octal-size-tab",
        "octal-size-base256-huge",
        "octal-device-space-inside",
        "octal-device-plus",
        "octal-device-minus",
        "octal-device-prefix",
        "octal-device-underscore",
        "octal-device-digit-8",
        "octal-device-tab",
        "pax-uid-space",
        "pax-uid-space-after",
        "pax-uid-underscore",
        "pax-uid-hex",
        "pax-uid-arabic",
        "pax-uid-dot",
        "pax-uid-exponent",
        "pax-uid-empty-sign",
        "pax-uid-more-than-int64",
        "pax-size-minus",
        "pax-size-space",
        "pax-size-space-after",
        "pax-size-underscore",
        "pax-size-hex",
        "pax-size-arabic",
        "pax-size-dot",
        "pax-size-exponent",
        "pax-size-empty-sign",
        "pax-size-more-than-int64",
        "pax-mtime-no-seconds",
        "pax-mtime-minus-no-seconds",
        "pax-mtime-two-dots",
        "pax-mtime-space",
        "pax-mtime-underscore",
        "pax-mtime-sign-in-fraction",
        "pax-mtime-letters-in-fraction",
        "pax-mtime-exponent",
        "pax-mtime-arabic",
        "pax-mtime-infinity",
        "pax-gid-garbage",
        "pax-atime-garbage",
        "pax-ctime-garbage",
        "pax-trailing-zeros",
        "format-header-of-spaces",
        "label-plain-data-gzip",
    ],
    "file name too long": [
        "name-256",
        "name-256-directory",
        "path-4096-and-more",
        "symlink-target-4096",
    ],
    "operation not permitted": [
        "link-to-dot-dot",
        "link-to-directory",
        "link-empty-target",
        "link-to-root",
    ],
    "unhandled tar header type 55": [
        "flag-37",
        "flag-57-contiguous-big",
    ],
    "unhandled tar header type 56": [
        "flag-38",
    ],
    "unhandled tar header type 65": [
        "flag-41",
    ],
    "unhandled tar header type 68": [
        "flag-44",
    ],
    "unhandled tar header type 69": [
        "flag-45",
    ],
    "unhandled tar header type 73": [
        "flag-49",
    ],
    "unhandled tar header type 77": [
        "flag-4d",
    ],
    "unhandled tar header type 78": [
        "flag-4e",
    ],
    "unhandled tar header type 86": [
        "flag-56",
    ],
    "unhandled tar header type 88": [
        "flag-58",
        "pax-x-upper",
    ],
    "unhandled tar header type 90": [
        "flag-5a",
    ],
    "unhandled tar header type 115": [
        "flag-73",
    ],
    "unhandled tar header type 87": [
        "flag-57",
    ],
    "unhandled tar header type 128": [
        "flag-80",
    ],
    "invalid argument": [
        "xattr-capability-bad",
        "xattr-acl-bad",
        "xattr-key-user-dot",
    ],
    "permission denied": [
        "xattr-acl-default-on-file",
    ],
    "numerical result out of range": [
        "xattr-key-empty",
        "xattr-key-too-long",
    ],
    "no space left on device": [
        "xattr-value-4500",
        "xattr-value-65536",
    ],
    "argument list too long": [
        "xattr-value-65537",
    ],
    "sparse file references non-existent data": [
        "sparse-1.0-data-short",
    ],
    "sparse file contains unreferenced data": [
        "sparse-1.0-data-long",
    ],
    "unhandled tar header type 83": [
        "sparse-old",
        "sparse-old-trailing-empty",
        "sparse-old-extended",
        "sparse-old-all-hole",
    ],
    "unexpected EOF": [
        "sparse-directory-flag",
        "end-partial-block",
        "end-partial-second-block",
        "truncated-in-data",
        "truncated-in-header",
        "truncated-after-header",
        "truncated-in-pax",
        "header-huge-size",
        "octal-size-base256-short",
        "pax-size-int64",
        "gzip-half-header-after",
        "gzip-truncated",
        "gzip-without-trailer",
        "zstd-truncated",
        "zstd-cut-in-skippable",
        "label-plain-data-zstd",
        "label-unknown-suffix",
    ],
    "header field too long": [
        "pax-large-2m",
        "gnu-long-2m",
    ],
    "invalid header": [
        "gzip-zero-padding",
        "gzip-garbage",
    ],
    "invalid checksum": [
        "gzip-wrong-crc",
        "gzip-wrong-length",
    ],
    "magic number mismatch": [
        "zstd-garbage",
        "zstd-zero-padding",
    ],
    "CRC check failed": [
        "zstd-wrong-checksum",
    ],
    "no processor for media-type": [
        "label-docker-zstd",
        "label-unknown",
        "label-empty-json",
    ],
    "ctd-decoder": [
        "label-encrypted",
    ],
}

REFUSED: Final = {name: words for words, names in _BY_WORDS.items() for name in names}
"""The words by the name of the case."""

DIFFERENT_SINCE_2: Final = frozenset({"label-docker-zstd", "label-unknown", "label-empty-json"})
"""Accepted by 2.1 (the first), or refused in other words."""

ACCEPTED: Final = {
    "child-below-whiteout-lower-layer": "the parents are new directories, as where nothing was below",
    "link-lower": "what the author of the image had: compared with GNU tar's",
    "link-lower-same-directory": "the same",
    "link-lower-directory-entry": "the same",
    "link-lower-through-symlink": "the same",
    "xattr-value-4500": "the host's file system has no part in it",
    "sparse-old": "sparse files of one format are as good as of another",
    "sparse-old-trailing-empty": "the same",
    "sparse-old-extended": "the same",
    "sparse-old-all-hole": "the same",
    "gzip-zero-padding": "gzip(1) ignores zeros behind the last member",
    "label-docker-zstd": "as containerd 2",
}
"""Refused by containerd, accepted by us: why that is right, by the name of the case."""

LEFT_OUT: Final = {
    "bottom-opaque-implicit-child": "opaque above a directory without entry",
    "bottom-opaque-root": "opaque above a directory without entry",
    "parent-missing-lower-acl": "a default ACL in a lower one",
    "parent-late-lower-setgid": "in a late one that is set-group-ID below",
    "parent-missing-own-acl-below-default-acl": "a default ACL in a lower one",
    "xattr-acl-default-inherited-upper": "a default ACL in a lower one",
    "path-1500-deep": "more than 1024 depth",
    "zstd-window-256m": "at most 134217728 are read",
    "label-nondistributable": "must not hand out",
    "label-docker-foreign": "must not hand out",
}
"""Accepted by containerd, refused by us by name, with our words."""

DELIBERATE: Final = frozenset(LEFT_OUT.values())
