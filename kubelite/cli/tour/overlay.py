"""Station 3: an overlay by hand, then the container's own; copy-on-write, whiteouts, shared layers, chain IDs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from typing import Any

from kubelite.cli.tour.guide import IMAGE, IMAGES, NAMESPACE, Guide, container, pod

INTRODUCTION = """
A container's root is an overlay: read-only layers below, one writable directory above. The first write to a file of a
layer copies the whole file up, and a removal leaves a whiteout above, so layers never change and any number of
containers share them. kubelite mounts it inside the container's own mount namespace: the host's mount table never has
it.
"""
FOUR = f"{IMAGES}four:1"
OTHER = f"{IMAGES}other:1"
CONTAINERFILE = f"""FROM {IMAGE}
RUN echo one > /one
RUN echo two > /two
RUN rm /one && echo three > /three
"""


def visit(guide: Guide) -> None:
    _by_hand(guide)
    guide.image()
    _containers_own(guide)
    _layers(guide)


def _by_hand(guide: Guide) -> None:
    guide.step("An overlay by hand")
    guide.say(
        "Four directories are enough; unshare gives the mount a namespace of its own, so it ends with the shell."
    )
    # Not every file system can hold the upper directory: an overlay cannot, and in a container /tmp is on one.
    place = tempfile.mkdtemp(
        prefix=f"kubelite-tour-{os.getpid()}-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
    )
    guide.undo.callback(shutil.rmtree, place, ignore_errors=True)
    guide.run(
        f"cd {place} && mkdir lower upper work merged; echo from the layer > lower/a; echo to be removed > lower/b"
    )
    options = "lowerdir=lower,upperdir=upper,workdir=work"
    inside = "cat merged/a; echo changed > merged/a; rm merged/b; ls merged"
    guide.run(
        f"cd {place} && unshare -m sh -c 'mount -t overlay overlay -o {options} merged && {{ {inside}; }}'"
    )
    guide.run(f"cd {place} && stat -c '%A %t,%T %n' lower/* upper/*")
    above = os.lstat(f"{place}/upper/b")
    guide.check("the removed file is a whiteout above: a character device 0, 0", _is_whiteout(above))
    with open(f"{place}/lower/a", encoding="utf-8") as file:
        guide.check("the layer below is unchanged", file.read() == "from the layer\n")


def _containers_own(guide: Guide) -> None:
    guide.step("The container's own overlay")
    guide.apply(pod("overlay", container("app")))
    seen = guide.inspect("overlay")["containers"][0]
    pid, upper = seen["pid"], f"{seen['bundle']}/upper"
    shown = guide.run(f"nsenter -t {pid} -m -p grep -m 1 overlay /proc/self/mountinfo", lines=3)
    guide.say(
        "nsenter -m enters the container's mount namespace: the programs that it finds are the container's. With -p it "
        "enters the pid namespace, too, without which /proc/self is nobody there."
    )
    guide.check("the kernel's upperdir is the directory in the bundle", f"upperdir={upper}" in shown)
    guide.run(f"nsenter -t {pid} -m ls /")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        guide.check("the host's mount table does not have this overlay", upper not in file.read())
    _copy_on_write(guide, pid, upper)
    guide.delete()


def _copy_on_write(guide: Guide, pid: int, upper: str) -> None:
    guide.step("Copy-on-write, by inode")
    inside = f"kubelite exec overlay -n {NAMESPACE} -- sh -c"
    [layer] = guide.inspect("overlay")["containers"][0]["rootfs"]["lower"][:1]
    guide.run(f"stat -c 'inode %i, %s bytes: %n' {layer}/etc/group")
    guide.run(f"{inside} 'stat -c \"inode %i, %s bytes: %n\" /etc/group'")
    guide.check("nothing is above yet", not os.path.exists(f"{upper}/etc/group"))
    guide.run(f"{inside} 'echo tour:x:1000: >> /etc/group; rm /etc/passwd'")
    guide.run(
        f"stat -c 'inode %i, %s bytes, %F %t,%T: %n' {layer}/etc/group {upper}/etc/group {upper}/etc/passwd"
    )
    copied, below = os.stat(f"{upper}/etc/group"), os.stat(f"{layer}/etc/group")
    guide.check("the whole file was copied up: another inode, and more bytes", _differs(copied, below))
    guide.check("the removed file is a whiteout", _is_whiteout(os.lstat(f"{upper}/etc/passwd")))
    guide.check("the layer still has it", os.path.exists(f"{layer}/etc/passwd"))
    seen = os.stat(f"/proc/{pid}/root/etc/group")
    guide.check("the container's root, seen by /proc/PID/root, has the copy", seen.st_size == copied.st_size)


def _differs(copied: os.stat_result, below: os.stat_result) -> bool:
    return copied.st_ino != below.st_ino and copied.st_size > below.st_size


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _layers(guide: Guide) -> None:
    guide.step("An image of four layers, and layers that two images share")
    guide.write("Containerfile", CONTAINERFILE)
    guide.run("cat Containerfile")
    guide.run(f"kubelite build -t {FOUR} .", lines=30)
    guide.run(f"printf 'FROM {FOUR}\\nRUN echo four > /four\\n' | kubelite build -t {OTHER} -f - .", lines=30)
    four, other = _image(guide, FOUR), _image(guide, OTHER)
    for directory in other["layers"]:
        guide.run(f"ls {directory}")
    guide.check("the image has four layers", len(four["layers"]) == 4)
    guide.check("the other image uses the same four directories", other["layers"][:4] == four["layers"])
    whiteout = f"{four['layers'][3]}/one"
    guide.check("removing /one in the last step is a whiteout in its layer", _is_whiteout(os.lstat(whiteout)))
    guide.step("diffID and chainID")
    guide.say(
        "A layer's diffID is the digest of its uncompressed tar. The chainID of a layer covers all layers below it: "
        "chainID(n) = sha256(chainID(n-1) + ' ' + diffID(n)). Unpacked layers are named by chainID."
    )
    diffs = _diff_ids(four)
    chain = diffs[0]
    rows = [("1", diffs[0][:24] + "…", chain[:24] + "…")]
    names = [chain.partition(":")[2]]
    for number, diff in enumerate(diffs[1:], 2):
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff}".encode()).hexdigest()
        names.append(chain.partition(":")[2])
        rows.append((str(number), diff[:24] + "…", chain[:24] + "…"))
    guide.table(("layer", "diffID", "chainID"), rows)
    found = [os.path.basename(path) for path in four["layers"]]
    guide.check("the directories are named by the chainIDs computed here", found == names)


def _image(guide: Guide, name: str) -> Any:
    """Return what kubelite knows of the image, with the layers in the order of the config: the lowest first."""
    found = json.loads(guide.ask(f"kubelite inspect {name}"))
    return {**found, "layers": found["layers"][::-1]}


def _diff_ids(image: Any) -> list[str]:
    """The diffIDs in the image's config, a blob of the store."""
    store = re.sub(r"/layers/[0-9a-f]+$", "", image["layers"][0])
    with open(f"{store}/blobs/sha256/{image['id'].partition(':')[2]}", encoding="utf-8") as file:
        found: list[str] = json.load(file)["rootfs"]["diff_ids"]
    return found
