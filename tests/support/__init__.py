"""Real servers and real images for the tests and for ``scripts/quickstart``.

| module | gives |
|---|---|
| ``processes`` | start a server, wait until it answers, stop exactly it |
| ``registry`` | Debian's docker-registry on a free loopback port |
| ``containerd`` | containerd in a folder of its own, the distribution's or Debian sid's, CRI on demand |
| ``cri`` | the kubelet's half of CRI: pull, pods, statistics |
| ``nodes`` | a daemon of ours and a containerd with CRI that uses it |
| ``images`` | layers, manifests and indexes in a folder, pushed with ``oras`` |
| ``tars`` | layers made by hand, entry by entry |
| ``debian`` | layers made from Debian's packages |
| ``demo`` | the two small images that share a layer |
| ``rawtar`` | layers made by hand, byte by byte: what no good writer would produce |
| ``awkward`` | the catalogue of odd images, and containerd's verdict on each |
| ``stacks``, ``mutations`` | random layers and damaged archives, each a function of its seed |
| ``listing`` | a tree as facts, and how two trees differ |
| ``reference`` | what containerd makes of many images |
| ``ours`` | what we make of them; the only one that imports ``imagecached`` |
| ``fsck`` | a second opinion on layer files |
| ``mounts`` | what is mounted below a folder, and how to get rid of it |

Nothing else here imports ``imagecached``: what the tests compare with must not lean on what they test.
"""
